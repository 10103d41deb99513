//! NICs over devlink, sysfs, ethtool and rtnetlink, and the notes on what they were before.

mod op;

pub use op::{EswitchSetting, NicOp};
