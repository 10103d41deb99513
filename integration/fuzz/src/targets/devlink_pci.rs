//! PCI addresses: what is printed is what was parsed.

use devlink::PciAddress;

use super::presentable;

pub(crate) fn check(data: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(data) else { return false };
    match text.parse::<PciAddress>() {
        Ok(address) => {
            let printed = address.to_string();
            assert_eq!(printed.parse(), Ok(address));
            assert!(printed.eq_ignore_ascii_case(text) || printed.len() < text.len(), "{text} is printed as {printed}");
            true
        }
        Err(error) => {
            presentable(&error);
            false
        }
    }
}
