//! The targets, a file each. What several of them need is here: cutting an input into its parts.

pub(crate) mod agent_api;
pub(crate) mod agent_config;
pub(crate) mod agent_datapath;
pub(crate) mod agent_links;
pub(crate) mod agent_marks;
pub(crate) mod agent_orders;
pub(crate) mod agent_record;
pub(crate) mod devlink_function;
pub(crate) mod devlink_message;
pub(crate) mod devlink_pci;
pub(crate) mod flows_frames;
pub(crate) mod flows_message;
pub(crate) mod flows_session;
pub(crate) mod flows_text;
pub(crate) mod ovsdb_endpoint;
pub(crate) mod ovsdb_framing;
pub(crate) mod ovsdb_message;
pub(crate) mod ovsdb_outcome;
pub(crate) mod ovsdb_schema;
pub(crate) mod ovsdb_session;
pub(crate) mod ovsdb_update;
pub(crate) mod ovsdb_value;

/// What an error may say about an input: no copy of it, however long it is.
const LONGEST_ERROR: usize = 4096;

/// Fails unless an error is one that can be logged and shown.
fn presentable(error: &impl std::fmt::Display) {
    let text = error.to_string();
    assert!(!text.is_empty(), "an error that says nothing");
    assert!(text.len() <= LONGEST_ERROR, "an error of {} bytes: {:.200}…", text.len(), text);
}

/// The first byte of an input, as a choice of the target's, and the rest.
fn choice(data: &[u8]) -> (u8, &[u8]) {
    data.split_first().map_or((0, data), |(first, rest)| (*first, rest))
}

/// The first line of an input and the rest.
fn line(data: &[u8]) -> (&[u8], &[u8]) {
    match data.iter().position(|byte| *byte == b'\n') {
        Some(end) => (&data[..end], &data[end + 1..]),
        None => (data, &[]),
    }
}
