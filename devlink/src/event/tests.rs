//! Notifications, both ways: what Linux 6.1 sends, and everything that there is to be told.

use super::*;
use crate::health::ReporterState;
use crate::port::{
    Capabilities, Flavour, FunctionOpState, FunctionState, Netdev, PortFunction, PortHandle, PortType, Split,
};
use crate::rate::RateHandle;
use prop::option::of;
use proptest::prelude::*;

const FAMILY: u16 = 21;

fn only(datagram: &[u8]) -> Result<Event, Malformed> {
    let mut events = Event::decode(FAMILY, datagram);
    let event = events.next().unwrap();
    assert!(events.next().is_none());
    event
}

/// The first thing that Linux 6.1 tells of a function that appears: a port that has no link yet.
#[test]
fn a_port_that_is_new() {
    #[rustfmt::skip]
    let octets = [
        &[116, 0, 0, 0][..], // length
        &[21, 0], // type: the family
        &[0, 0], // no flags
        &[0, 0, 0, 0], // sequence number: no answer
        &[0, 0, 0, 0], // port
        &[7, 1, 0, 0], // DEVLINK_CMD_PORT_NEW, version 1, reserved
        &[14, 0, 1, 0], b"netdevsim\0", &[0; 2], // DEVLINK_ATTR_BUS_NAME; padding
        &[16, 0, 2, 0], b"netdevsim10\0", // DEVLINK_ATTR_DEV_NAME
        &[8, 0, 3, 0, 128, 0, 0, 0], // DEVLINK_ATTR_PORT_INDEX
        &[6, 0, 4, 0, 0, 0, 0, 0], // DEVLINK_ATTR_PORT_TYPE: DEVLINK_PORT_TYPE_NOTSET; padding
        &[5, 0, 148, 0, 0, 0, 0, 0], // DEVLINK_ATTR_PORT_SPLITTABLE; padding
        &[6, 0, 77, 0, 4, 0, 0, 0], // DEVLINK_ATTR_PORT_FLAVOUR: DEVLINK_PORT_FLAVOUR_PCI_VF; padding
        &[8, 0, 150, 0, 0, 0, 0, 0], // DEVLINK_ATTR_PORT_CONTROLLER_NUMBER
        &[6, 0, 127, 0, 0, 0, 0, 0], // DEVLINK_ATTR_PORT_PCI_PF_NUMBER; padding
        &[6, 0, 128, 0, 0, 0, 0, 0], // DEVLINK_ATTR_PORT_PCI_VF_NUMBER; padding
        &[5, 0, 149, 0, 0, 0, 0, 0], // DEVLINK_ATTR_PORT_EXTERNAL; padding
    ]
    .concat();
    let port = Port {
        bus: "netdevsim".to_owned(),
        dev: "netdevsim10".to_owned(),
        index: 128,
        kind: PortType::NotSet,
        flavour: Flavour::PciVf { controller: 0, external: false, pf: 0, vf: 0 },
        netdev: None,
        ibdev: None,
        lanes: None,
        splittable: Some(false),
        function: None,
    };
    assert_eq!(only(&octets), Ok(Event::PortNew(port.clone())));
    let gone = [&octets[..16], &[8], &octets[17..]].concat();
    assert_eq!(only(&gone), Ok(Event::PortDel(port)));
    // A parameter of the driver's, of which nothing is known.
    let other = [&octets[..16], &[40], &octets[17..]].concat();
    let device = Some(Device { bus: "netdevsim".to_owned(), dev: "netdevsim10".to_owned() });
    assert_eq!(only(&other), Ok(Event::Other { command: 40, device }));
    // Another family's is not for us, and what follows one that is cut is lost.
    assert_eq!(Event::decode(22, &octets).count(), 0);
    let cut = [&octets[..], &octets[..100]].concat();
    let length = Malformed::Length { what: "a message", said: 116, there: 100 };
    assert_eq!(Event::decode(FAMILY, &cut).nth(1), Some(Err(length)));
}

fn text() -> impl Strategy<Value = String> {
    "[^\0]{0,12}"
}

fn device() -> impl Strategy<Value = Device> {
    (text(), text()).prop_map(|(bus, dev)| Device { bus, dev })
}

fn flavour() -> impl Strategy<Value = Flavour> {
    let split = of((any::<u32>(), of(any::<u32>())).prop_map(|(group, subport)| Split { group, subport }));
    prop_oneof![
        (of(any::<u32>()), split).prop_map(|(number, split)| Flavour::Physical { number, split }),
        of(any::<u32>()).prop_map(|number| Flavour::Cpu { number }),
        of(any::<u32>()).prop_map(|number| Flavour::Dsa { number }),
        any::<(u32, bool, u16)>().prop_map(|(controller, external, pf)| Flavour::PciPf { controller, external, pf }),
        any::<(u32, bool, u16, u16)>().prop_map(|(controller, external, pf, vf)| Flavour::PciVf {
            controller,
            external,
            pf,
            vf
        }),
        any::<(u32, bool, u16, u32)>().prop_map(|(controller, external, pf, sf)| Flavour::PciSf {
            controller,
            external,
            pf,
            sf
        }),
        prop_oneof![Just(Flavour::Virtual), Just(Flavour::Unused), Just(Flavour::Unset)],
        (8u16..).prop_map(Flavour::Other),
    ]
}

fn function() -> impl Strategy<Value = PortFunction> {
    let state = of(prop_oneof![
        Just(FunctionState::Inactive),
        Just(FunctionState::Active),
        (2u8..).prop_map(FunctionState::Other)
    ]);
    let opstate = of(prop_oneof![
        Just(FunctionOpState::Detached),
        Just(FunctionOpState::Attached),
        (2u8..).prop_map(FunctionOpState::Other)
    ]);
    (of(any::<[u8; 6]>()), state, opstate, any::<(u32, u32)>()).prop_map(
        |(hw_addr, state, opstate, (value, selector))| PortFunction {
            hw_addr,
            state,
            opstate,
            caps: Capabilities { value, selector },
        },
    )
}

fn port() -> impl Strategy<Value = Port> {
    let kind = prop_oneof![
        Just(PortType::NotSet),
        Just(PortType::Auto),
        Just(PortType::Ethernet),
        Just(PortType::Infiniband),
        (4u16..).prop_map(PortType::Other)
    ];
    let netdev = of((any::<u32>(), text()).prop_map(|(index, name)| Netdev { index, name }));
    let rest = (of(text()), of(any::<u32>()), of(any::<bool>()), of(function()));
    (device(), any::<u32>(), kind, flavour(), netdev, rest).prop_map(
        |(Device { bus, dev }, index, kind, flavour, netdev, (ibdev, lanes, splittable, function))| {
            let function = function.filter(|function| *function != PortFunction::default());
            Port { bus, dev, index, kind, flavour, netdev, ibdev, lanes, splittable, function }
        },
    )
}

fn rate() -> impl Strategy<Value = Rate> {
    let of_what = prop_oneof![
        (device(), any::<u32>()).prop_map(|(device, index)| RateHandle::Leaf(PortHandle { device, index })),
        (device(), text()).prop_map(|(device, name)| RateHandle::Node { device, name }),
    ];
    (of_what, any::<u64>(), any::<u64>(), of(text())).prop_map(|(of, tx_share, tx_max, parent)| Rate {
        of,
        tx_share,
        tx_max,
        parent,
    })
}

fn reporter() -> impl Strategy<Value = Reporter> {
    let state =
        prop_oneof![Just(ReporterState::Healthy), Just(ReporterState::Error), (2u8..).prop_map(ReporterState::Other)];
    let counts = (any::<u64>(), any::<u64>(), of(any::<bool>()), of(any::<u64>()));
    (device(), of(any::<u32>()), text(), state, counts).prop_map(
        |(device, port, name, state, (errors, recoveries, auto_recover, graceful_period))| Reporter {
            device,
            port,
            name,
            state,
            errors,
            recoveries,
            auto_recover,
            graceful_period,
        },
    )
}

fn event() -> impl Strategy<Value = Event> {
    let status =
        (device(), any::<(bool, u32, u32)>()).prop_map(|(device, (reload_failed, reloads, remote_reloads))| {
            DeviceStatus { device, reload_failed, reloads, remote_reloads }
        });
    prop_oneof![
        status.prop_map(Event::DeviceNew),
        device().prop_map(Event::DeviceDel),
        port().prop_map(Event::PortNew),
        port().prop_map(Event::PortDel),
        reporter().prop_map(Event::HealthReporter),
        rate().prop_map(Event::RateNew),
        rate().prop_map(Event::RateDel),
        (80u8.., of(device())).prop_map(|(command, device)| Event::Other { command, device }),
        Just(Event::Overrun),
    ]
}

proptest! {
    #[test]
    fn events_round_trip(events in prop::collection::vec(event(), 0..4)) {
        let datagram: Vec<u8> = events.iter().flat_map(|event| event.encode(FAMILY)).collect();
        prop_assert_eq!(Event::decode(FAMILY, &datagram).collect::<Result<Vec<_>, _>>(), Ok(events));
    }

    /// A message that is right but for some octets gives an event or an error.
    #[test]
    fn harmed_events_are_read(event in event(), harm in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4), cut: prop::sample::Index) {
        let mut datagram = event.encode(FAMILY);
        for (at, octet) in harm {
            let at = at.index(datagram.len());
            datagram[at] = octet;
        }
        datagram.truncate(1 + cut.index(datagram.len()));
        let read = Event::decode(FAMILY, &datagram).count();
        prop_assert!(read <= 1 + datagram.len() / 16);
    }

    /// Any attributes at all, as every command that there is.
    #[test]
    fn any_attributes_are_read(command: u8, all in prop::collection::vec((0u16..180, prop::collection::vec(any::<u8>(), 0..24)), 0..12)) {
        let mut writer = Writer::default();
        for (kind, payload) in &all {
            writer.bytes(*kind, payload);
        }
        if let Ok(event) = only(&notification(FAMILY, command, &writer)) {
            prop_assert_eq!(only(&event.encode(FAMILY)), Ok(event));
        }
    }
}
