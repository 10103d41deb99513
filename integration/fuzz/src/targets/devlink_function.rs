//! Addresses of functions and names of ports: what is printed is what was parsed.

use std::fmt::Display;
use std::str::FromStr;

use devlink::{FunctionAddress, PortName};

use super::presentable;

pub(crate) fn check(data: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(data) else { return false };
    let address = round_trips::<FunctionAddress>(text);
    round_trips::<PortName>(text) || address
}

fn round_trips<T>(text: &str) -> bool
where
    T: FromStr<Err: Display> + Display + PartialEq,
{
    match text.parse::<T>() {
        Ok(value) => {
            let printed = value.to_string();
            assert!(printed.parse().is_ok_and(|again: T| again == value), "{text} is printed as {printed}");
            true
        }
        Err(error) => {
            presentable(&error);
            false
        }
    }
}
