//! The shape of a record, as one table: every object, the os-vif version in which each of its fields
//! appeared, what a field holds. Reading ([`super::node`]), the JSON Schema and the documentation's check
//! go by it. What the values mean together is `validate`'s business.
//!
//! The os-vif part follows os-vif 5.3.0 (`os_vif/objects/*.py`); a test compares it with what that release
//! itself says of its classes.

/// Where in a record an object stands. An os-vif object of another family is refused there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    Record,
    Vif,
    Profile,
    Offload,
    Network,
    Subnet,
    FixedIp,
    Route,
    Instance,
    Policy,
    Rule,
    AddressPair,
    Rate,
    Parent,
}

/// What a field holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Text without control characters.
    Text,
    /// A kernel interface name.
    Name,
    /// An absolute path that fits in `sockaddr_un`.
    SocketPath,
    Flag,
    Uuid,
    Mac,
    Pci,
    /// A function of a NIC: a PCI address, or `BUS/DEV:FUNCTION` in devlink's words.
    Function,
    Ip,
    /// An address with a prefix length.
    Prefix,
    /// An address, with or without a prefix length.
    AddressOrPrefix,
    /// A whole number within bounds, both included.
    Number(u64, u64),
    /// One of these words.
    Word(&'static [&'static str]),
    /// A list of IP addresses.
    Ips,
    /// A list of text without control characters.
    Texts,
    /// An IP protocol: a word, or its number, which may be text too.
    Protocol,
    /// An object of lists of addresses and prefixes, by names that are the sender's.
    Members,
    /// One object.
    Object(Family),
    /// A list of objects; os-vif wraps it in an object of this name.
    List(Family, &'static str),
}

/// One field.
#[derive(Debug)]
pub(super) struct Field {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    /// Minor version of the os-vif object that it came with.
    pub(super) since: u32,
    /// Whether os-vif lets it be null, as opposed to absent.
    pub(super) nullable: bool,
    /// Whether no record can do without it.
    pub(super) required: bool,
    pub(super) doc: &'static str,
}

impl Field {
    const fn since(mut self, minor: u32) -> Field {
        self.since = minor;
        self
    }

    const fn nullable(mut self) -> Field {
        self.nullable = true;
        self
    }

    const fn required(mut self) -> Field {
        self.required = true;
        self
    }
}

const fn field(name: &'static str, kind: Kind, doc: &'static str) -> Field {
    Field { name, kind, since: 0, nullable: false, required: false, doc }
}

/// One object.
#[derive(Debug)]
pub(super) struct Object {
    pub(super) family: Family,
    /// The name in `versioned_object.name` and the newest minor version; `None` for vifd's own objects.
    pub(super) os_vif: Option<(&'static str, u32)>,
    /// The word in the native form's `type`; `None` where the family has one object only.
    pub(super) tag: Option<&'static str>,
    pub(super) doc: &'static str,
    /// The fields, in groups so that objects can share one.
    pub(super) groups: &'static [&'static [Field]],
}

impl Object {
    pub(super) fn fields(&self) -> impl Iterator<Item = &'static Field> {
        self.groups.iter().flat_map(|group| group.iter())
    }

    pub(super) fn field(&self, name: &str) -> Option<&'static Field> {
        self.fields().find(|field| field.name == name)
    }

    /// What people call it: the os-vif name where it has one.
    pub(super) fn name(&self) -> &'static str {
        match (self.os_vif, self.family) {
            (Some((name, _)), _) => name,
            (None, Family::Policy) => "policy",
            (None, Family::Rule) => "rule",
            (None, Family::AddressPair) => "allowed address pair",
            (None, Family::Rate) => "rate",
            (None, Family::Parent) => "parent",
            (None, _) => "record",
        }
    }
}

/// The objects that may stand where `family` is wanted.
pub(super) fn of(family: Family) -> impl Iterator<Item = &'static Object> {
    OBJECTS.iter().filter(move |object| object.family == family)
}

/// The os-vif object of that name, wherever it belongs.
pub(super) fn named(name: &str) -> Option<&'static Object> {
    OBJECTS.iter().find(|object| object.os_vif.is_some_and(|(known, _)| known == name))
}

/// Largest rate in kbit/s: Open vSwitch polices with 32 bits.
const MAX_KBPS: u64 = u32::MAX as u64;

const VIF: &[Field] = &[
    field("id", Kind::Uuid, "Identity of the VIF.").required(),
    field("address", Kind::Mac, "The guest's MAC address.").nullable(),
    field("network", Kind::Object(Family::Network), "The network that the VIF is on.").nullable(),
    field("plugin", Kind::Text, "The os-vif plugin that the record was made for; kept for display."),
    field(
        "active",
        Kind::Flag,
        "False keeps the VIF administratively down; a device that is in a Linux bridge already stays there. True when absent. Not acted on in an os-vif object.",
    ),
    field(
        "preserve_on_delete",
        Kind::Flag,
        "True leaves the host side in place at unplug, but for a sub-port by flows. False when absent. Not acted on in an os-vif object.",
    ),
    field("has_traffic_filtering", Kind::Flag, "Whether the controller filters the traffic; reported only."),
    field("port_profile", Kind::Object(Family::Profile), "How the port is to be made."),
];

const OPENVSWITCH_PROFILE: &[Field] = &[
    field("interface_id", Kind::Text, "Written as external_ids:iface-id. The VIF's id when absent."),
    field("profile_id", Kind::Text, "Opaque to Open vSwitch; kept for display."),
    field("datapath_type", Kind::Text, "datapath_type of a bridge that has to be made.").since(1).nullable(),
    field("create_port", Kind::Flag, "Whether vifd makes the port; otherwise the hypervisor does.").since(3),
    field("create_tap", Kind::Flag, "Whether vifd makes the tap as well. VIFOpenVSwitch only.").since(4),
    field("multiqueue", Kind::Flag, "Whether that tap has several queues.").since(4),
];

const OFFLOAD_DOC: &str = "The function whose representor becomes the port.";
/// `datapath_offload` came with version 1.1 of the base profile, which most profiles took over as their 1.1 …
const OFFLOAD: &[Field] = &[field("datapath_offload", Kind::Object(Family::Offload), OFFLOAD_DOC).since(1).nullable()];
/// … and the Open vSwitch ones, which had a 1.1 already, as their 1.2.
const OFFLOAD_OPENVSWITCH: &[Field] =
    &[field("datapath_offload", Kind::Object(Family::Offload), OFFLOAD_DOC).since(2).nullable()];

const REPRESENTOR_NAME: Field = field("representor_name", Kind::Name, "Name to give the representor.").nullable();

/// Every object.
pub(super) static OBJECTS: &[Object] = &[
    Object {
        family: Family::Record,
        os_vif: None,
        tag: None,
        doc: "One VIF and what belongs to it.",
        groups: &[&[
            field("vif", Kind::Object(Family::Vif), "The VIF.").required(),
            field("instance", Kind::Object(Family::Instance), "The guest that owns the VIF."),
            field("policy", Kind::Object(Family::Policy), "Security and rate limits."),
            field("parent", Kind::Object(Family::Parent), "The trunk, where the VIF is one of its sub-ports."),
            field(
                "generation",
                Kind::Number(0, u64::MAX),
                "The controller's counter, given back in the status. 0 when absent.",
            ),
        ]],
    },
    Object {
        family: Family::Vif,
        os_vif: Some(("VIFGeneric", 0)),
        tag: Some("generic"),
        doc: "A tap that is attached to nothing.",
        groups: &[VIF, &[field("vif_name", Kind::Name, "Name of the tap.").required()]],
    },
    Object {
        family: Family::Vif,
        os_vif: Some(("VIFBridge", 0)),
        tag: Some("bridge"),
        doc: "A device on a Linux bridge; with an Open vSwitch profile that bridge is joined to an Open vSwitch one.",
        groups: &[
            VIF,
            &[
                field("vif_name", Kind::Name, "Name of the guest's device."),
                field("bridge_name", Kind::Name, "Name of the Linux bridge."),
            ],
        ],
    },
    Object {
        family: Family::Vif,
        os_vif: Some(("VIFOpenVSwitch", 0)),
        tag: Some("openvswitch"),
        doc: "A port of an Open vSwitch bridge.",
        groups: &[
            VIF,
            &[
                field("vif_name", Kind::Name, "Name of the port and of its netdev.").required(),
                field("bridge_name", Kind::Name, "Kept for display: the bridge is network.bridge."),
            ],
        ],
    },
    Object {
        family: Family::Vif,
        os_vif: Some(("VIFDirect", 0)),
        tag: Some("direct"),
        doc: "A macvtap over a physical or virtual function.",
        groups: &[
            VIF,
            &[
                field("vif_name", Kind::Name, "Name of the macvtap."),
                field("dev_address", Kind::Function, "Function of a NIC: its PCI address, or BUS/DEV:pfNvfM."),
                field("mode", Kind::Word(&["vepa", "passthrough", "bridge"]), "macvtap mode."),
                field("vlan_name", Kind::Name, "VLAN link to use in place of the function's own netdev."),
            ],
        ],
    },
    Object {
        family: Family::Vif,
        os_vif: Some(("VIFVHostUser", 1)),
        tag: Some("vhostuser"),
        doc: "A vhost-user socket.",
        groups: &[
            VIF,
            &[
                field("vif_name", Kind::Name, "The port's name is vhu and the VIF's id, cut. Of a fast path with a small bridge this is the internal port's.")
                    .since(1),
                field("path", Kind::SocketPath, "Path of the socket.").required(),
                field(
                    "mode",
                    Kind::Word(&["client", "server"]),
                    "What the guest is: client, and Open vSwitch listens; or server, and Open vSwitch connects.",
                )
                .required(),
            ],
        ],
    },
    Object {
        family: Family::Vif,
        os_vif: Some(("VIFHostDevice", 0)),
        tag: Some("hostdevice"),
        doc: "A PCI function that the guest gets whole.",
        groups: &[
            VIF,
            &[
                field(
                    "dev_type",
                    Kind::Word(&["ethernet", "generic"]),
                    "ethernet keeps the host's driver, generic binds the function to vfio-pci.",
                ),
                field("dev_address", Kind::Function, "Function of a NIC: its PCI address, or BUS/DEV:pfNvfM.").required(),
            ],
        ],
    },
    Object {
        family: Family::Vif,
        os_vif: Some(("VIFNestedDPDK", 0)),
        tag: Some("nested_dpdk"),
        doc: "A PCI function for a DPDK application in a container.",
        groups: &[
            VIF,
            &[
                field("pci_address", Kind::Pci, "PCI address of the function.").required(),
                field("dev_driver", Kind::Text, "Driver to bind it to."),
            ],
        ],
    },
    Object {
        family: Family::Profile,
        os_vif: Some(("VIFPortProfileBase", 1)),
        tag: Some("base"),
        doc: "A profile that says nothing of its own.",
        groups: &[OFFLOAD],
    },
    Object {
        family: Family::Profile,
        os_vif: Some(("VIFPortProfileOpenVSwitch", 4)),
        tag: Some("openvswitch"),
        doc: "A port of an Open vSwitch bridge.",
        groups: &[OPENVSWITCH_PROFILE, OFFLOAD_OPENVSWITCH],
    },
    Object {
        family: Family::Profile,
        os_vif: Some(("VIFPortProfileFPOpenVSwitch", 4)),
        tag: Some("fp_openvswitch"),
        doc: "A port of a fast path's Open vSwitch bridge.",
        groups: &[
            OPENVSWITCH_PROFILE,
            OFFLOAD_OPENVSWITCH,
            &[
                field("bridge_name", Kind::Name, "Bridge of the fast path. network.bridge when absent."),
                field("hybrid_plug", Kind::Flag, "Whether a bridge of its own stands in between."),
            ],
        ],
    },
    Object {
        family: Family::Profile,
        os_vif: Some(("VIFPortProfileOVSRepresentor", 4)),
        tag: Some("ovs_representor"),
        doc: "A representor as a port; the older way to say datapath_offload.",
        groups: &[
            OPENVSWITCH_PROFILE,
            OFFLOAD_OPENVSWITCH,
            &[
                REPRESENTOR_NAME,
                field("representor_address", Kind::Pci, "Function whose representor is meant.").nullable(),
            ],
        ],
    },
    Object {
        family: Family::Profile,
        os_vif: Some(("VIFPortProfileFPBridge", 1)),
        tag: Some("fp_bridge"),
        doc: "A fast path's port on a Linux bridge.",
        groups: &[OFFLOAD, &[field("bridge_name", Kind::Name, "The Linux bridge.").required()]],
    },
    Object {
        family: Family::Profile,
        os_vif: Some(("VIFPortProfileFPTap", 1)),
        tag: Some("fp_tap"),
        doc: "A fast path's port that is routed.",
        groups: &[OFFLOAD, &[field("mac_address", Kind::Mac, "Address of the host's side.").nullable()]],
    },
    Object {
        family: Family::Profile,
        os_vif: Some(("VIFPortProfile8021Qbg", 1)),
        tag: Some("8021qbg"),
        doc: "802.1Qbg: the station is associated with a VSI. Widths as in struct ifla_port_vsi (linux/if_link.h).",
        groups: &[
            OFFLOAD,
            &[
                field("manager_id", Kind::Number(0, 255), "VSI manager, 8 bits.").required(),
                field("type_id", Kind::Number(0, 0xff_ffff), "VSI type, 24 bits.").required(),
                field("type_id_version", Kind::Number(0, 255), "Version of the VSI type, 8 bits.").required(),
                field("instance_id", Kind::Uuid, "VSI instance. The VIF's id when absent."),
            ],
        ],
    },
    Object {
        family: Family::Profile,
        os_vif: Some(("VIFPortProfile8021Qbh", 1)),
        tag: Some("8021qbh"),
        doc: "802.1Qbh: the adapter resolves a port profile.",
        groups: &[
            OFFLOAD,
            &[field("profile_id", Kind::Text, "Name of the port profile, at most 39 bytes.").required()],
        ],
    },
    Object {
        family: Family::Profile,
        os_vif: Some(("VIFPortProfileK8sDPDK", 1)),
        tag: Some("k8s_dpdk"),
        doc: "The pod that a nested DPDK function is for.",
        groups: &[
            OFFLOAD,
            &[
                field("l3_setup", Kind::Flag, "Whether the pod wants layer 3 set up."),
                field("selflink", Kind::Text, "The pod's URL in the Kubernetes API."),
                field("resourceversion", Kind::Text, "The pod's resource version."),
            ],
        ],
    },
    Object {
        family: Family::Offload,
        os_vif: Some(("DatapathOffloadRepresentor", 0)),
        tag: None,
        doc: "A function whose representor becomes the port.",
        groups: &[&[
            REPRESENTOR_NAME,
            // Any text, where the old profile takes a PCI address alone: subfunctions have other names.
            field("representor_address", Kind::Text, "Address of the function on its bus.").nullable(),
        ]],
    },
    Object {
        family: Family::Network,
        os_vif: Some(("Network", 1)),
        tag: None,
        doc: "A virtual network.",
        groups: &[&[
            field("id", Kind::Uuid, "Identity; two VIFs of one network cannot share a MAC address."),
            field("bridge", Kind::Name, "Bridge that VIFs of this network are plugged into."),
            field("label", Kind::Text, "For people."),
            field("subnets", Kind::List(Family::Subnet, "SubnetList"), "Subnets with this VIF's fixed addresses."),
            field("multi_host", Kind::Flag, "nova-network's multi-host mode."),
            field("should_provide_bridge", Kind::Flag, "Whether the Linux bridge has to be made here."),
            field("should_provide_vlan", Kind::Flag, "Whether the VLAN link has to be made here."),
            field("bridge_interface", Kind::Name, "Device that a bridge made here gets as its uplink.").nullable(),
            field("vlan", Kind::Number(1, 4094), "VLAN of the network.").nullable(),
            field("mtu", Kind::Number(68, 65535), "Octets. The configured default when absent, null or 0.")
                .since(1)
                .nullable(),
        ]],
    },
    Object {
        family: Family::Subnet,
        os_vif: Some(("Subnet", 0)),
        tag: None,
        doc: "A subnet of the network.",
        groups: &[&[
            field("cidr", Kind::Prefix, "The subnet's prefix."),
            field("dns", Kind::Ips, "Name servers."),
            field("gateway", Kind::Ip, "Default gateway."),
            field("ips", Kind::List(Family::FixedIp, "FixedIPList"), "Addresses of this VIF."),
            field("routes", Kind::List(Family::Route, "RouteList"), "Routes handed to the guest."),
            field("dhcp_server", Kind::Ip, "DHCP server."),
        ]],
    },
    Object {
        family: Family::FixedIp,
        os_vif: Some(("FixedIP", 0)),
        tag: None,
        doc: "An address of the VIF.",
        groups: &[&[
            field("address", Kind::Ip, "The address.").required(),
            field("floating_ips", Kind::Ips, "Addresses that are translated to it elsewhere."),
        ]],
    },
    Object {
        family: Family::Route,
        os_vif: Some(("Route", 0)),
        tag: None,
        doc: "A route of the subnet.",
        groups: &[&[
            field("cidr", Kind::Prefix, "Destination.").required(),
            field("gateway", Kind::Ip, "Next hop."),
            field("interface", Kind::Text, "Device; Nova never sets it."),
        ]],
    },
    Object {
        family: Family::Instance,
        os_vif: Some(("InstanceInfo", 0)),
        tag: None,
        doc: "The guest.",
        groups: &[&[
            field("uuid", Kind::Text, "Written as external_ids:vm-uuid and vm-id.").required(),
            field("name", Kind::Text, "For people."),
            field("project_id", Kind::Text, "Tenant."),
        ]],
    },
    Object {
        family: Family::Policy,
        os_vif: None,
        tag: None,
        doc: "Security and rate limits of ports on bridges of Open vSwitch whose flows vifd makes (`flows = \"managed\"`). \
              Elsewhere it filters and limits nothing, and `vifd describe` says so.",
        groups: &[&[
            field("port_security", Kind::Flag, "Whether only the VIF's own addresses may be used. True when absent."),
            field(
                "rules",
                Kind::List(Family::Rule, ""),
                "What may pass, in both directions; nothing else does. Nothing is filtered when absent, which an empty list \
                 does not mean.",
            ),
            field("groups", Kind::Texts, "Names of the groups that the VIF's addresses are in."),
            field(
                "group_members",
                Kind::Members,
                "Members of groups that are elsewhere: addresses and prefixes, by the groups' names.",
            ),
            field(
                "allowed_address_pairs",
                Kind::List(Family::AddressPair, ""),
                "Further addresses that the guest may use.",
            ),
            field("rate", Kind::Object(Family::Rate), "Rate limits."),
            field("trust", Kind::Flag, "Trust of an SR-IOV function. False when absent."),
            field("spoof_check", Kind::Flag, "Spoof check of an SR-IOV function. True when absent."),
        ]],
    },
    Object {
        family: Family::Rule,
        os_vif: None,
        tag: None,
        doc: "Packets that may pass and begin a connection, which then passes in both directions.",
        groups: &[&[
            field("direction", Kind::Word(&["ingress", "egress"]), "ingress is towards the guest.").required(),
            field("ethertype", Kind::Word(&["IPv4", "IPv6"]), "IPv4 when absent."),
            field("protocol", Kind::Protocol, "Any when absent. In a rule for IPv6 icmp means icmpv6."),
            field(
                "port_min",
                Kind::Number(0, 65535),
                "Lowest destination port of tcp, udp and sctp, or type of icmp. Any when absent.",
            ),
            field(
                "port_max",
                Kind::Number(0, 65535),
                "Highest destination port, port_min when absent; or code of icmp, any when absent.",
            ),
            field("remote_ip_prefix", Kind::AddressOrPrefix, "Addresses of the other end. Any when absent."),
            field("remote_group", Kind::Text, "The group that the other end's address is in."),
            field("description", Kind::Text, "For people."),
        ]],
    },
    Object {
        family: Family::AddressPair,
        os_vif: None,
        tag: None,
        doc: "An address that the guest may use; at least one of the two fields.",
        groups: &[&[
            field("mac", Kind::Mac, "The VIF's own when absent."),
            field("ip", Kind::AddressOrPrefix, "Address or prefix."),
        ]],
    },
    Object {
        family: Family::Rate,
        os_vif: None,
        tag: None,
        doc: "Rate limits in kbit/s, 0 for none.",
        groups: &[&[
            field("ingress_kbps", Kind::Number(0, MAX_KBPS), "Towards the guest."),
            field("egress_kbps", Kind::Number(0, MAX_KBPS), "From the guest."),
        ]],
    },
    Object {
        family: Family::Parent,
        os_vif: None,
        tag: None,
        doc: "The trunk that the VIF is a sub-port of. The VIF is an `openvswitch` one with an `openvswitch` profile; its \
              `vif_name` and what the profile says of ports and taps mean nothing.",
        groups: &[&[
            field("vif", Kind::Uuid, "Id of the trunk's VIF.").required(),
            field("vlan", Kind::Number(1, 4094), "VLAN of the sub-port on the trunk.").required(),
        ]],
    },
];
