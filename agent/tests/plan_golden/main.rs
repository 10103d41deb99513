//! Golden plans: for a record and a host, what is planned round by round until nothing is, and the last word on
//! each VIF. `INSTA_UPDATE=always cargo test -p vifd --test plan_golden` writes them anew.

#![allow(clippy::expect_used, clippy::unwrap_used)]

mod borders;
mod case;
mod flows;
mod functions;
mod keeping;
mod links;
mod nics;
mod plugging;
mod port_profiles;
mod trunks;
