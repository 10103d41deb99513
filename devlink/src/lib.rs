//! devlink
