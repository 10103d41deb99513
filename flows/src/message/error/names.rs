//! The names that Open vSwitch gives OpenFlow errors (its ofp-errors(3) and `ovs-ofctl`), each with a sentence for
//! people. How an error message is read is in the parent module.

use super::Vendor;

/// Name and meaning of an error, as OpenFlow 1.4 numbers it; `None` when nobody named it.
pub(super) fn describe(vendor: Vendor, kind: u16, code: u16) -> Option<(&'static str, &'static str)> {
    match vendor {
        Vendor::Standard => standard(kind, code),
        Vendor::Nicira => nicira(kind),
        Vendor::Onf if kind == 4250 => Some(("OFPBAC_BAD_SET_MASK", "a set_field action has a mask")),
        Vendor::Onf | Vendor::Other(_) => None,
    }
}

fn standard(kind: u16, code: u16) -> Option<(&'static str, &'static str)> {
    match kind {
        0 => hello_failed(code),
        1 => bad_request(code),
        2 => bad_action(code),
        3 => bad_instruction(code),
        4 => bad_match(code),
        5 => flow_mod_failed(code),
        6 => group_mod_failed(code),
        12 => meter_mod_failed(code),
        7..=11 | 13 | 15 => of_configuration(kind, code),
        14 => bad_property(code),
        16 => flow_monitor_failed(code),
        17 => bundle_failed(code),
        _ => None,
    }
}

fn hello_failed(code: u16) -> Option<(&'static str, &'static str)> {
    Some(match code {
        0 => ("OFPHFC_INCOMPATIBLE", "the switch and we have no OpenFlow version in common"),
        1 => ("OFPHFC_EPERM", "the switch does not let us connect"),
        _ => return None,
    })
}

fn bad_request(code: u16) -> Option<(&'static str, &'static str)> {
    Some(match code {
        0 => ("OFPBRC_BAD_VERSION", "the switch does not speak the message's OpenFlow version"),
        1 => ("OFPBRC_BAD_TYPE", "the switch does not know the type of message"),
        2 => ("OFPBRC_BAD_STAT", "the switch does not know the type of multipart request"),
        3 => ("OFPBRC_BAD_VENDOR", "the switch does not know the vendor of the extension"),
        4 => ("OFPBRC_BAD_SUBTYPE", "the switch does not know this extension of the vendor"),
        5 => ("OFPBRC_EPERM", "the switch does not permit the request"),
        6 => ("OFPBRC_BAD_LEN", "the message has the wrong length for its type"),
        7 => ("OFPBRC_BUFFER_EMPTY", "the packet buffer was used already"),
        8 => ("OFPBRC_BUFFER_UNKNOWN", "there is no such packet buffer"),
        9 => ("OFPBRC_BAD_TABLE_ID", "there is no such table"),
        10 => ("OFPBRC_IS_SECONDARY", "a secondary controller may only read"),
        11 => ("OFPBRC_BAD_PORT", "a port is invalid or missing"),
        12 => ("OFPBRC_BAD_PACKET", "the packet to be sent is invalid"),
        13 => ("OFPBRC_MULTIPART_BUFFER_OVERFLOW", "the multipart request is longer than the switch takes"),
        14 => ("OFPBRC_MULTIPART_REQUEST_TIMEOUT", "the parts of the multipart request came too slowly"),
        15 => ("OFPBRC_MULTIPART_REPLY_TIMEOUT", "the multipart reply took too long"),
        _ => return None,
    })
}

fn bad_action(code: u16) -> Option<(&'static str, &'static str)> {
    Some(match code {
        0 => ("OFPBAC_BAD_TYPE", "the switch does not know the action"),
        1 => ("OFPBAC_BAD_LEN", "an action has a wrong length"),
        2 => ("OFPBAC_BAD_VENDOR", "the switch does not know the vendor of an action"),
        3 => ("OFPBAC_BAD_VENDOR_TYPE", "the switch does not know this action of the vendor"),
        4 => ("OFPBAC_BAD_OUT_PORT", "an output port is invalid"),
        5 => ("OFPBAC_BAD_ARGUMENT", "an action's argument is invalid"),
        6 => ("OFPBAC_EPERM", "the switch does not permit the action"),
        7 => ("OFPBAC_TOO_MANY", "there are more actions than the switch can handle"),
        8 => ("OFPBAC_BAD_QUEUE", "an output queue is invalid"),
        9 => ("OFPBAC_BAD_OUT_GROUP", "an action names a group that does not exist"),
        10 => ("OFPBAC_MATCH_INCONSISTENT", "an action does not fit the match, or a field's prerequisite is unmet"),
        11 => ("OFPBAC_UNSUPPORTED_ORDER", "the switch cannot run the actions in this order"),
        12 => ("OFPBAC_BAD_TAG", "an action uses a tag or encapsulation that the switch does not support"),
        13 => ("OFPBAC_BAD_SET_TYPE", "an action names a field that the switch does not support"),
        14 => ("OFPBAC_BAD_SET_LEN", "an action reaches past the end of a field, or covers no bits"),
        15 => ("OFPBAC_BAD_SET_ARGUMENT", "an action sets a field to an invalid value, or a field that is read-only"),
        _ => return None,
    })
}

fn bad_instruction(code: u16) -> Option<(&'static str, &'static str)> {
    Some(match code {
        0 => ("OFPBIC_UNKNOWN_INST", "the switch does not know the instruction"),
        1 => ("OFPBIC_UNSUP_INST", "the switch or the table does not support the instruction"),
        2 => ("OFPBIC_BAD_TABLE_ID", "an instruction names an invalid table"),
        3 => ("OFPBIC_UNSUP_METADATA", "the metadata value is not supported"),
        4 => ("OFPBIC_UNSUP_METADATA_MASK", "the metadata mask is not supported"),
        5 => ("OFPBIC_BAD_EXPERIMENTER", "the switch does not know the vendor of an instruction"),
        6 => ("OFPBIC_BAD_EXP_TYPE", "the switch does not know this instruction of the vendor"),
        7 => ("OFPBIC_BAD_LEN", "an instruction has a wrong length"),
        8 => ("OFPBIC_EPERM", "the switch does not permit the instruction"),
        9 => ("OFPBIC_DUP_INST", "an instruction is there twice"),
        _ => return None,
    })
}

fn bad_match(code: u16) -> Option<(&'static str, &'static str)> {
    Some(match code {
        0 => ("OFPBMC_BAD_TYPE", "the switch does not know the type of match"),
        1 => ("OFPBMC_BAD_LEN", "the match has a wrong length"),
        2 => ("OFPBMC_BAD_TAG", "the match uses a tag or encapsulation that the switch does not support"),
        3 => ("OFPBMC_BAD_DL_ADDR_MASK", "the switch does not support such a mask of a MAC address"),
        4 => ("OFPBMC_BAD_NW_ADDR_MASK", "the switch does not support such a mask of an IP address"),
        5 => ("OFPBMC_BAD_WILDCARDS", "the switch does not support such wildcards in a match"),
        6 => ("OFPBMC_BAD_FIELD", "the switch does not support a field in a match"),
        7 => ("OFPBMC_BAD_VALUE", "a field in a match has an unsupported value"),
        8 => ("OFPBMC_BAD_MASK", "a field in a match has an unsupported mask"),
        9 => ("OFPBMC_BAD_PREREQ", "a field in a match lacks its prerequisite"),
        10 => ("OFPBMC_DUP_FIELD", "a field is twice in a match"),
        11 => ("OFPBMC_EPERM", "the switch does not permit the match"),
        _ => return None,
    })
}

fn flow_mod_failed(code: u16) -> Option<(&'static str, &'static str)> {
    Some(match code {
        0 => ("OFPFMFC_UNKNOWN", "the switch could not change the flow and does not say why"),
        1 => ("OFPFMFC_TABLE_FULL", "the table is full"),
        2 => ("OFPFMFC_BAD_TABLE_ID", "there is no such table"),
        3 => ("OFPFMFC_OVERLAP", "the flow overlaps another one of its priority"),
        4 => ("OFPFMFC_EPERM", "the switch does not permit the flow"),
        5 => ("OFPFMFC_BAD_TIMEOUT", "the switch does not support the timeouts"),
        6 => ("OFPFMFC_BAD_COMMAND", "the switch does not know the flow command"),
        7 => ("OFPFMFC_BAD_FLAGS", "the switch does not support the flow's flags"),
        8 => ("OFPFMFC_CANT_SYNC", "the switch cannot synchronise the tables"),
        9 => ("OFPFMFC_BAD_PRIORITY", "the switch does not support the priority"),
        10 => ("OFPFMFC_IS_SYNC", "the flow is a read-only copy of another table's"),
        _ => return None,
    })
}

fn group_mod_failed(code: u16) -> Option<(&'static str, &'static str)> {
    Some(match code {
        0 => ("OFPGMFC_GROUP_EXISTS", "the group to be added is there already"),
        1 => ("OFPGMFC_INVALID_GROUP", "the group is invalid"),
        2 => ("OFPGMFC_WEIGHT_UNSUPPORTED", "the switch does not support unequal weights"),
        3 => ("OFPGMFC_OUT_OF_GROUPS", "the group table is full"),
        4 => ("OFPGMFC_OUT_OF_BUCKETS", "the group has more buckets than the switch can handle"),
        5 => ("OFPGMFC_CHAINING_UNSUPPORTED", "the switch does not support groups of groups"),
        6 => ("OFPGMFC_WATCH_UNSUPPORTED", "the group cannot watch a port or group"),
        7 => ("OFPGMFC_LOOP", "the group would refer to itself"),
        8 => ("OFPGMFC_UNKNOWN_GROUP", "the group to be modified does not exist"),
        9 => ("OFPGMFC_CHAINED_GROUP", "another group refers to the group to be deleted"),
        10 => ("OFPGMFC_BAD_TYPE", "the switch does not know the type of group"),
        11 => ("OFPGMFC_BAD_COMMAND", "the switch does not know the group command"),
        12 => ("OFPGMFC_BAD_BUCKET", "a bucket is invalid"),
        13 => ("OFPGMFC_BAD_WATCH", "a bucket's watch port or group is invalid"),
        14 => ("OFPGMFC_EPERM", "the switch does not permit the group"),
        15 => ("OFPGMFC_UNKNOWN_BUCKET", "there is no such bucket"),
        16 => ("OFPGMFC_BUCKET_EXISTS", "there is a bucket of this id already"),
        _ => return None,
    })
}

fn meter_mod_failed(code: u16) -> Option<(&'static str, &'static str)> {
    Some(match code {
        0 => ("OFPMMFC_UNKNOWN", "the switch could not change the meter and does not say why"),
        1 => ("OFPMMFC_METER_EXISTS", "the meter to be added is there already"),
        2 => ("OFPMMFC_INVALID_METER", "the meter is invalid"),
        3 => ("OFPMMFC_UNKNOWN_METER", "there is no such meter"),
        4 => ("OFPMMFC_BAD_COMMAND", "the switch does not know the meter command"),
        5 => ("OFPMMFC_BAD_FLAGS", "the switch does not support the meter's flags"),
        6 => ("OFPMMFC_BAD_RATE", "the switch does not support the rate"),
        7 => ("OFPMMFC_BAD_BURST", "the switch does not support the burst size"),
        8 => ("OFPMMFC_BAD_BAND", "the switch does not support the type of band"),
        9 => ("OFPMMFC_BAD_BAND_VALUE", "the switch does not support a band's value"),
        10 => ("OFPMMFC_OUT_OF_METERS", "there are no more meters"),
        11 => ("OFPMMFC_OUT_OF_BANDS", "the meter has more bands than the switch can handle"),
        _ => return None,
    })
}

/// Ports, tables, queues, the switch's configuration, roles, table features, asynchronous messages.
fn of_configuration(kind: u16, code: u16) -> Option<(&'static str, &'static str)> {
    Some(match (kind, code) {
        (7, 0) => ("OFPPMFC_BAD_PORT", "there is no such port"),
        (7, 1) => ("OFPPMFC_BAD_HW_ADDR", "the port has another MAC address"),
        (7, 2) => ("OFPPMFC_BAD_CONFIG", "the port's configuration is invalid"),
        (7, 3) => ("OFPPMFC_BAD_ADVERTISE", "the port's advertised features are invalid"),
        (7, 4) => ("OFPPMFC_EPERM", "the switch does not permit changing the port"),
        (8, 0) => ("OFPTMFC_BAD_TABLE", "there is no such table"),
        (8, 1) => ("OFPTMFC_BAD_CONFIG", "the table's configuration is invalid"),
        (8, 2) => ("OFPTMFC_EPERM", "the switch does not permit changing the table"),
        (9, 0) => ("OFPQOFC_BAD_PORT", "there is no such port"),
        (9, 1) => ("OFPQOFC_BAD_QUEUE", "there is no such queue"),
        (9, 2) => ("OFPQOFC_EPERM", "the switch does not permit the queue operation"),
        (10, 0) => ("OFPSCFC_BAD_FLAGS", "the switch configuration's flags are invalid"),
        (10, 1) => ("OFPSCFC_BAD_LEN", "the switch configuration's length is invalid"),
        (10, 2) => ("OFPSCFC_EPERM", "the switch does not permit changing its configuration"),
        (11, 0) => ("OFPRRFC_STALE", "the role request is older than another controller's"),
        (11, 1) => ("OFPRRFC_UNSUP", "the switch does not support changing roles"),
        (11, 2) => ("OFPRRFC_BAD_ROLE", "there is no such role"),
        (13, 0) => ("OFPTFFC_BAD_TABLE", "there is no such table"),
        (13, 1) => ("OFPTFFC_BAD_METADATA", "the metadata mask is invalid"),
        (13, 5) => ("OFPTFFC_EPERM", "the switch does not permit changing table features"),
        (15, 0) => ("OFPACFC_INVALID", "a mask of asynchronous messages is invalid"),
        (15, 1) => ("OFPACFC_UNSUPPORTED", "the choice of asynchronous messages is not supported"),
        (15, 2) => ("OFPACFC_EPERM", "the switch does not permit choosing asynchronous messages"),
        _ => return None,
    })
}

fn bad_property(code: u16) -> Option<(&'static str, &'static str)> {
    Some(match code {
        0 => ("OFPBPC_BAD_TYPE", "the switch does not know a property"),
        1 => ("OFPBPC_BAD_LEN", "a property has a wrong length"),
        2 => ("OFPBPC_BAD_VALUE", "a property has an unsupported value"),
        3 => ("OFPBPC_TOO_MANY", "there are more properties than the switch can handle"),
        4 => ("OFPBPC_DUP_TYPE", "a property is there twice"),
        5 => ("OFPBPC_BAD_EXPERIMENTER", "the switch does not know the vendor of a property"),
        6 => ("OFPBPC_BAD_EXP_TYPE", "the switch does not know this property of the vendor"),
        7 => ("OFPBPC_BAD_EXP_VALUE", "a vendor's property has an unsupported value"),
        8 => ("OFPBPC_EPERM", "the switch does not permit a property"),
        _ => return None,
    })
}

fn flow_monitor_failed(code: u16) -> Option<(&'static str, &'static str)> {
    Some(match code {
        0 => ("OFPMOFC_UNKNOWN", "the switch could not monitor flows and does not say why"),
        1 => ("OFPMOFC_MONITOR_EXISTS", "there is a monitor of this id already"),
        2 => ("OFPMOFC_INVALID_MONITOR", "the monitor is invalid"),
        3 => ("OFPMOFC_UNKNOWN_MONITOR", "there is no such monitor"),
        4 => ("OFPMOFC_BAD_COMMAND", "the switch does not know the monitor command"),
        5 => ("OFPMOFC_BAD_FLAGS", "the switch does not support the monitor's flags"),
        6 => ("OFPMOFC_BAD_TABLE_ID", "there is no such table"),
        7 => ("OFPMOFC_BAD_OUT", "the monitor's output port or group is invalid"),
        _ => return None,
    })
}

fn bundle_failed(code: u16) -> Option<(&'static str, &'static str)> {
    Some(match code {
        0 => ("OFPBFC_UNKNOWN", "the bundle failed and the switch does not say why"),
        1 => ("OFPBFC_EPERM", "the switch does not permit the bundle"),
        2 => ("OFPBFC_BAD_ID", "there is no such bundle"),
        3 => ("OFPBFC_BUNDLE_EXIST", "there is a bundle of this id already"),
        4 => ("OFPBFC_BUNDLE_CLOSED", "the bundle is closed"),
        5 => ("OFPBFC_OUT_OF_BUNDLES", "there are too many bundles"),
        6 => ("OFPBFC_BAD_TYPE", "the switch does not know the bundle command"),
        7 => ("OFPBFC_BAD_FLAGS", "the bundle's flags are unsupported or contradict each other"),
        8 => ("OFPBFC_MSG_BAD_LEN", "a message in the bundle has a wrong length"),
        9 => ("OFPBFC_MSG_BAD_XID", "a message in the bundle has a wrong or used transaction id"),
        10 => ("OFPBFC_MSG_UNSUP", "a message in the bundle is of a type that bundles do not take"),
        11 => ("OFPBFC_MSG_CONFLICT", "messages in the bundle do not go together"),
        12 => ("OFPBFC_MSG_TOO_MANY", "the bundle has more messages than the switch can handle"),
        13 => ("OFPBFC_MSG_FAILED", "a message in the bundle failed"),
        14 => ("OFPBFC_TIMEOUT", "the bundle took too long"),
        15 => ("OFPBFC_BUNDLE_IN_PROGRESS", "another bundle holds what this one needs"),
        _ => return None,
    })
}

fn nicira(kind: u16) -> Option<(&'static str, &'static str)> {
    Some(match kind {
        2 => ("NXBRC_NXM_INVALID", "a match is malformed"),
        3 => ("NXBRC_NXM_BAD_TYPE", "a match has a field that is invalid or not implemented"),
        4 => ("NXBRC_MUST_BE_ZERO", "octets that must be zero are not"),
        5 => ("NXBRC_BAD_REASON", "the reason of a port status is invalid"),
        9 => ("NXBRC_FM_BAD_EVENT", "the event of a flow update is invalid"),
        10 => ("NXBRC_UNENCODABLE_ERROR", "there is an error that this version of OpenFlow cannot express"),
        11 => ("NXBAC_MUST_BE_ZERO", "octets of an action that must be zero are not"),
        12 => ("NXFMFC_HARDWARE", "the hardware failed"),
        13 => ("NXFMFC_BAD_TABLE_ID", "there is no such table"),
        15 => ("NXBAC_BAD_CONJUNCTION", "a conjunction is not alone, or its numbers are out of range"),
        16 => ("NXTTMFC_BAD_COMMAND", "the switch does not know the TLV table command"),
        17 => ("NXTTMFC_BAD_OPT_LEN", "a TLV option has an invalid length"),
        18 => ("NXTTMFC_BAD_FIELD_IDX", "there is no tun_metadata field of this number"),
        19 => ("NXTTMFC_TABLE_FULL", "the TLV options exceed the room that the switch has for them"),
        20 => ("NXTTMFC_ALREADY_MAPPED", "the tun_metadata field is mapped already"),
        21 => ("NXTTMFC_DUP_ENTRY", "the TLV option is mapped to another field"),
        22 => ("OFPBFC_BAD_VERSION", "a message in the bundle is of another OpenFlow version"),
        23 => ("NXQOFC_QUEUE_ERROR", "the host's system failed to tell about queues"),
        34 => ("NXR_NOT_SUPPORTED", "the datapath cannot resume packets"),
        35 => ("NXR_STALE", "the packet to be resumed is of an earlier life of the switch"),
        36 => ("NXST_NOT_CONFIGURED", "what was asked about is not configured"),
        37 => ("NXFMFC_INVALID_TLV_FIELD", "a flow has a tun_metadata field that is not mapped"),
        38 => ("NXTTMFC_INVALID_TLV_DEL", "flows use the TLV option to be unmapped"),
        39 => ("NXBAC_BAD_HEADER_TYPE", "the switch cannot encapsulate in or decapsulate this type of packet"),
        40 => ("NXBAC_UNKNOWN_ED_PROP", "the switch does not know a property of an encap or decap action"),
        41 => ("NXBAC_BAD_ED_PROP", "a property of an encap or decap action is invalid"),
        42 => ("NXBAC_CT_DATAPATH_SUPPORT", "the datapath lacks the connection tracking that an action needs"),
        43 => ("NXBMC_CT_DATAPATH_SUPPORT", "the datapath lacks the connection tracking that a match needs"),
        44 => ("NXTFFC_DUP_TABLE", "a table is there twice"),
        _ => return None,
    })
}
