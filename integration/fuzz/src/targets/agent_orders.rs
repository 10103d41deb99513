//! `pauses.json`, the operator's word kept over restarts: what is read is kept as it is.

use vifd::reconciler::orders::{decode, encode};

use super::presentable;

pub(crate) fn check(data: &[u8]) -> bool {
    match decode(data) {
        Ok(orders) => {
            let written = encode(&orders).expect("it is plain data");
            assert_eq!(decode(&written).expect("it is what we write"), orders);
            true
        }
        Err(error) => {
            presentable(&error);
            false
        }
    }
}
