//! Endpoints: what is printed is what was parsed.

use ovsdb::endpoint::Endpoint;

use super::presentable;

pub(crate) fn check(data: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(data) else { return false };
    match text.parse::<Endpoint>() {
        Ok(endpoint) => {
            assert_eq!(endpoint.to_string().parse(), Ok(endpoint));
            true
        }
        Err(error) => {
            presentable(&error);
            false
        }
    }
}
