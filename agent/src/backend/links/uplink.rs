//! An interface joins a bridge, which takes over its addresses and routes, or leaves it.

use super::perform::OpError;
use super::request::Requests;

/// See `LinkOp::MoveUplink`.
pub(super) fn move_uplink(
    _requests: &mut Requests,
    _interface: &(u32, String),
    _bridge: &(u32, String),
    _join: bool,
) -> Result<(), OpError> {
    Err(OpError::Guard("not yet".to_owned()))
}
