//! decode(encode(x)) == x for messages of every type, and that no bytes make a decoder panic. Matches, actions and flows
//! have properties of their own.

use proptest::prelude::*;

use super::*;
use crate::{Frames, Instructions, Match, PortNo};

fn bytes(max: usize) -> impl Strategy<Value = Bytes> {
    prop::collection::vec(any::<u8>(), 0..max).prop_map(Bytes::from)
}

fn counter() -> impl Strategy<Value = Counter> {
    any::<(u64, u64)>().prop_map(|(packets, bytes)| Counter { packets, bytes })
}

fn some_duration() -> impl Strategy<Value = Duration> {
    (any::<u32>(), 0..1_000_000_000u32).prop_map(|(seconds, nanoseconds)| Duration::new(seconds.into(), nanoseconds))
}

fn error() -> impl Strategy<Value = SwitchError> {
    let vendor = prop_oneof![Just(Vendor::Nicira), Just(Vendor::Onf), Just(Vendor::Other(0x4ea))];
    prop_oneof![
        (0..0xffffu16, any::<u16>(), bytes(80)).prop_map(|(kind, code, data)| SwitchError {
            vendor: Vendor::Standard,
            kind,
            code,
            data
        }),
        (vendor, any::<u16>(), bytes(80)).prop_map(|(vendor, kind, data)| SwitchError { vendor, kind, code: 0, data }),
    ]
}

/// A property of a type that is not known.
fn unknown_property() -> impl Strategy<Value = Box<[u8]>> {
    prop_oneof![Just(Vec::new()), Just(vec![0xff, 0xff, 0, 13, 0, 0, 0xaa, 1, 0, 0, 0, 7, 9, 0, 0, 0])]
        .prop_map(Into::into)
}

fn port() -> impl Strategy<Value = Port> {
    let ethernet = any::<[u32; 6]>().prop_map(|[current, advertised, supported, peer, current_speed, max_speed]| {
        PortEthernet { current, advertised, supported, peer, current_speed, max_speed }
    });
    let fixed = (any::<u32>(), any::<[u8; 6]>(), "[a-z0-9-]{0,15}", any::<u32>(), any::<u32>());
    (fixed, prop::option::of(ethernet), unknown_property()).prop_map(
        |((number, hw_addr, name, config, state), ethernet, unknown)| Port {
            number: PortNo(number),
            hw_addr,
            name,
            config,
            state,
            ethernet,
            unknown,
        },
    )
}

fn port_stats() -> impl Strategy<Value = PortStats> {
    let fixed = (any::<u32>(), some_duration(), any::<[u64; 8]>());
    (fixed, prop::option::of(any::<[u64; 4]>()), unknown_property()).prop_map(
        |((number, duration, counters), ethernet, unknown)| {
            let [rx_packets, tx_packets, rx_bytes, tx_bytes, rx_dropped, tx_dropped, rx_errors, tx_errors] = counters;
            PortStats {
                number: PortNo(number),
                duration,
                rx_packets,
                tx_packets,
                rx_bytes,
                tx_bytes,
                rx_dropped,
                tx_dropped,
                rx_errors,
                tx_errors,
                ethernet,
                unknown,
            }
        },
    )
}

fn monitor() -> impl Strategy<Value = MonitorRequest> {
    let command = prop_oneof![Just(MonitorCommand::Add), Just(MonitorCommand::Modify), Just(MonitorCommand::Delete)];
    (any::<(u32, u32, u32, u16, u8)>(), command).prop_map(|((id, port, out_group, flags, table), command)| {
        MonitorRequest {
            id,
            out_port: PortNo(port),
            out_group,
            flags: MonitorFlags(flags),
            table,
            command,
            matching: Match::default(),
        }
    })
}

fn update() -> impl Strategy<Value = FlowUpdate> {
    let event = prop_oneof![
        Just(UpdateEvent::Initial),
        Just(UpdateEvent::Added),
        Just(UpdateEvent::Removed),
        Just(UpdateEvent::Modified)
    ];
    let flow = (event, any::<(u8, u8, u16, u16, u16, u64)>(), any::<Option<u8>>()).prop_map(
        |(event, (reason, table, priority, idle_timeout, hard_timeout, cookie), goto_table)| {
            FlowUpdate::Flow(UpdatedFlow {
                event,
                reason,
                table,
                priority,
                matching: Match::default(),
                cookie,
                idle_timeout,
                hard_timeout,
                instructions: Instructions { goto_table, ..Instructions::default() },
            })
        },
    );
    let abbreviated = any::<u32>().prop_map(|xid| FlowUpdate::Abbreviated { xid });
    prop_oneof![flow, abbreviated, Just(FlowUpdate::Paused), Just(FlowUpdate::Resumed)]
}

fn multipart() -> impl Strategy<Value = MultipartRequest> {
    let flows = any::<(u8, u32, u32, u64, u64)>().prop_map(|(table, port, out_group, cookie, cookie_mask)| {
        FlowsRequest { table, out_port: PortNo(port), out_group, cookie, cookie_mask, matching: Match::default() }
    });
    prop_oneof![
        Just(MultipartRequest::Description),
        flows.clone().prop_map(MultipartRequest::Flows),
        flows.prop_map(MultipartRequest::Aggregate),
        Just(MultipartRequest::Tables),
        any::<u32>().prop_map(|port| MultipartRequest::PortStats(PortNo(port))),
        any::<u32>().prop_map(MultipartRequest::GroupStats),
        Just(MultipartRequest::Groups),
        Just(MultipartRequest::GroupFeatures),
        any::<u32>().prop_map(MultipartRequest::MeterStats),
        any::<u32>().prop_map(MultipartRequest::Meters),
        Just(MultipartRequest::MeterFeatures),
        Just(MultipartRequest::Ports),
        monitor().prop_map(MultipartRequest::FlowMonitor),
        (17..u16::MAX, bytes(40)).prop_map(|(kind, body)| MultipartRequest::Other { kind: MultipartKind(kind), body }),
    ]
}

fn role() -> impl Strategy<Value = RoleRequest> {
    let role = prop_oneof![Just(Role::NoChange), Just(Role::Equal), Just(Role::Primary), Just(Role::Secondary)];
    (role, any::<u64>()).prop_map(|(role, generation)| RoleRequest { role, generation })
}

fn config() -> impl Strategy<Value = SwitchConfig> {
    any::<(u16, u16)>().prop_map(|(flags, miss_send_len)| SwitchConfig { flags, miss_send_len })
}

fn packet_in() -> impl Strategy<Value = PacketIn> {
    let buffer = prop::option::of(0..u32::MAX);
    (buffer, any::<(u16, u8, u8, u64)>(), bytes(80)).prop_map(|(buffer, (total_len, reason, table, cookie), data)| {
        PacketIn { buffer, total_len, reason, table, cookie, matching: Match::default(), data }
    })
}

fn flow_removed() -> impl Strategy<Value = FlowRemoved> {
    (any::<(u64, u16, u8, u8, u16, u16, u64, u64)>(), some_duration()).prop_map(
        |((cookie, priority, reason, table, idle_timeout, hard_timeout, packet_count, byte_count), duration)| {
            FlowRemoved {
                cookie,
                priority,
                reason,
                table,
                duration,
                idle_timeout,
                hard_timeout,
                packet_count,
                byte_count,
                matching: Match::default(),
            }
        },
    )
}

fn message() -> impl Strategy<Value = Message> {
    let features =
        any::<(u64, u32, u8, u8, u32)>().prop_map(|(datapath_id, buffers, tables, auxiliary_id, capabilities)| {
            Features { datapath_id, buffers, tables, auxiliary_id, capabilities }
        });
    let reason = prop_oneof![Just(PortReason::Add), Just(PortReason::Delete), Just(PortReason::Modify)];
    let mask = any::<(u16, u32)>().prop_map(|(kind, reasons)| AsyncMask { kind, reasons });
    let packet_out = (prop::option::of(0..u32::MAX), any::<u32>(), bytes(80)).prop_map(|(buffer, port, data)| {
        PacketOut { buffer, in_port: PortNo(port), actions: [crate::Action::Group(port)].into(), data }
    });
    prop_oneof![
        any::<Option<u32>>().prop_map(|versions| Message::Hello(Hello { versions })),
        error().prop_map(Message::Error),
        bytes(40).prop_map(Message::EchoRequest),
        bytes(40).prop_map(Message::EchoReply),
        (any::<u32>(), any::<u32>(), bytes(40)).prop_map(|(vendor, subtype, body)| Message::Experimenter {
            vendor,
            subtype,
            body
        }),
        Just(Message::FeaturesRequest),
        features.prop_map(Message::FeaturesReply),
        Just(Message::GetConfigRequest),
        config().prop_map(Message::GetConfigReply),
        config().prop_map(Message::SetConfig),
        packet_in().prop_map(Message::PacketIn),
        flow_removed().prop_map(Message::FlowRemoved),
        (reason, port()).prop_map(|(reason, port)| Message::PortStatus(PortStatus { reason, port })),
        packet_out.prop_map(Message::PacketOut),
        multipart().prop_map(Message::MultipartRequest),
        (any::<u16>(), any::<bool>(), bytes(40)).prop_map(|(kind, more, body)| Message::MultipartReply {
            kind: MultipartKind(kind),
            more,
            body
        }),
        Just(Message::BarrierRequest),
        Just(Message::BarrierReply),
        role().prop_map(Message::RoleRequest),
        role().prop_map(Message::RoleReply),
        prop::collection::vec(mask, 0..4).prop_map(Message::SetAsync),
        (any::<u32>(), any::<u8>(), bytes(40)).prop_map(|(xid, kind, body)| Message::RequestForward(RequestForward {
            xid,
            kind: Kind(kind),
            body
        })),
        (any::<u32>(), any::<u16>()).prop_map(|(id, flags)| Message::BundleControl(BundleControl {
            id,
            step: BundleStep::CommitRequest,
            flags
        })),
        (any::<u32>(), any::<u16>(), bytes(40)).prop_map(|(id, flags, message)| Message::BundleAdd(BundleAdd {
            id,
            flags,
            message
        })),
        (40..u8::MAX, bytes(40)).prop_map(|(kind, body)| Message::Other { kind: Kind(kind), body }),
    ]
}

/// Encodes the entries of a reply and reads them again.
fn again<T>(
    entries: &[T],
    put: impl Fn(&T, &mut BytesMut),
    read: impl Fn(&[u8]) -> Result<Vec<T>, DecodeError>,
) -> Vec<T> {
    let mut out = BytesMut::new();
    entries.iter().for_each(|entry| put(entry, &mut out));
    read(&out).unwrap()
}

proptest! {
    #[test]
    fn messages_survive(message in message(), xid: u32) {
        let mut frames = Frames::default();
        message.encode(xid, frames.buffer()).unwrap();
        let (header, body) = frames.next_message().unwrap().unwrap();
        prop_assert_eq!((header.version, header.xid, header.kind), (VERSION, xid, message.kind().0));
        prop_assert_eq!(Message::decode(header, &body).unwrap(), message);
    }

    #[test]
    fn messages_survive_in_bundles(message in message(), xid: u32, id: u32, flags: u16) {
        let mut frames = Frames::default();
        message.encode_in_bundle(id, flags, xid, frames.buffer()).unwrap();
        let (header, body) = frames.next_message().unwrap().unwrap();
        let mut alone = BytesMut::new();
        message.encode(xid, &mut alone).unwrap();
        let add = BundleAdd { id, flags, message: alone.freeze() };
        prop_assert_eq!(Message::decode(header, &body).unwrap(), Message::BundleAdd(add));
    }

    #[test]
    fn entries_of_replies_survive(
        ports in prop::collection::vec(port(), 0..3),
        port_stats in prop::collection::vec(port_stats(), 0..3),
        updates in prop::collection::vec(update(), 0..4),
        counters in prop::collection::vec(counter(), 0..4),
        numbers: (u32, u32, u8, u8, u64, u64),
        duration in some_duration(),
        arrays: ([u32; 4], [u32; 4]),
        names in prop::array::uniform5("[ -~]{0,31}"),
    ) {
        prop_assert_eq!(again(&ports, Port::encode, Port::decode_all), ports);
        prop_assert_eq!(again(&port_stats, PortStats::encode, PortStats::decode_all), port_stats);
        prop_assert_eq!(again(&updates, FlowUpdate::encode, FlowUpdate::decode_all), updates);
        let (a, b, c, d, e, f) = numbers;
        let total = Counter { packets: e, bytes: f };
        let groups = [GroupStats { id: a, ref_count: b, total, duration, buckets: counters.clone() }];
        prop_assert_eq!(again(&groups, GroupStats::encode, GroupStats::decode_all), groups);
        let meters = [MeterStats { id: a, flow_count: b, input: total, duration, bands: counters }];
        prop_assert_eq!(again(&meters, MeterStats::encode, MeterStats::decode_all), meters);
        let tables = [TableStats { table: c, active_count: a, lookup_count: e, matched_count: f }];
        prop_assert_eq!(again(&tables, TableStats::encode, TableStats::decode_all), tables);
        let one = |put: &dyn Fn(&mut BytesMut)| { let mut out = BytesMut::new(); put(&mut out); out };
        let aggregate = Aggregate { packet_count: e, byte_count: f, flow_count: a };
        prop_assert_eq!(Aggregate::decode(&one(&|out| aggregate.encode(out))).unwrap(), aggregate);
        let features = GroupFeatures { kinds: a, capabilities: b, max_groups: arrays.0, actions: arrays.1 };
        prop_assert_eq!(GroupFeatures::decode(&one(&|out| features.encode(out))).unwrap(), features);
        let features = MeterFeatures { max_meters: a, band_types: b, capabilities: a, max_bands: c, max_color: d };
        prop_assert_eq!(MeterFeatures::decode(&one(&|out| features.encode(out))).unwrap(), features);
        let [manufacturer, hardware, software, serial, datapath] = names;
        let description = Description { manufacturer, hardware, software, serial, datapath };
        prop_assert_eq!(Description::decode(&one(&|out| description.encode(out))).unwrap(), description);
    }

    #[test]
    fn hostile_bytes_never_panic(kind in 0..40u8, xid: u32, body in bytes(200)) {
        let header = Header { version: VERSION, kind, length: 8, xid };
        if let Ok(Message::RequestForward(forward)) = Message::decode(header, &body) {
            let _ = forward.request();
        }
        let _ = Port::decode_all(&body);
        let _ = PortStats::decode_all(&body);
        let _ = FlowUpdate::decode_all(&body);
        let _ = GroupStats::decode_all(&body);
        let _ = MeterStats::decode_all(&body);
        let _ = TlvTable::decode(&body);
    }
}

#[test]
fn a_message_that_is_too_long_leaves_nothing_behind() {
    let message = Message::EchoRequest(Bytes::from(vec![0; 65_528]));
    let mut out = BytesMut::from(&b"before"[..]);
    assert_eq!(message.encode(1, &mut out), Err(TooLong(65_536)));
    assert_eq!(message.encode_in_bundle(1, 0, 1, &mut out), Err(TooLong(65_552)));
    assert_eq!(out, b"before"[..]);
    let message = Message::EchoRequest(Bytes::from(vec![0; 65_527]));
    message.encode(1, &mut out).unwrap();
    assert_eq!(out.len(), 6 + 65_535);
}
