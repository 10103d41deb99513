//! A host with a managed bridge and guests on it, and what is asked of its switch.

use anyhow::{Context, Result};
use vifd_integration::lab::{Config, FlowRow, Guest, Ovs, Record, Switch, Vifd};

/// The bridge of all tests.
pub(crate) const BRIDGE: &str = "br-int";

/// Where packets are counted and dropped: table and priority, as docs/flows.md has them.
pub(crate) mod places {
    pub(crate) const INACTIVE: (u8, u16) = (0, 200);
    pub(crate) const VLAN_TAG: (u8, u16) = (0, 90);
    pub(crate) const MAC_SPOOF: (u8, u16) = (10, 10);
    pub(crate) const ARP_SPOOF: (u8, u16) = (11, 30);
    pub(crate) const ND_SPOOF: (u8, u16) = (11, 20);
    pub(crate) const ROUTER_ADVERTISEMENT: (u8, u16) = (12, 210);
    pub(crate) const DHCP_SERVER: (u8, u16) = (12, 200);
    pub(crate) const IP_SPOOF: (u8, u16) = (12, 20);
    pub(crate) const SENT: (u8, u16) = (20, 100);
}

/// Open vSwitch and vifd with one managed bridge.
pub(crate) struct Host {
    pub(crate) ovs: Ovs,
    pub(crate) vifd: Vifd,
}

impl Host {
    /// A host without uplinks.
    pub(crate) fn start() -> Result<Host> {
        Host::with("")
    }

    /// A host whose bridge has further keys in the configuration.
    pub(crate) fn with(keys: &str) -> Result<Host> {
        let host = Host::prepared(keys)?;
        host.started()
    }

    /// The same before vifd runs.
    pub(crate) fn prepared(keys: &str) -> Result<Host> {
        let ovs = Ovs::start(Switch::Userspace)?;
        let mut vifd = Vifd::beside(&ovs)?;
        let more =
            format!("[[bridge]]\nname = \"{BRIDGE}\"\nflows = \"managed\"\ndatapath_type = \"netdev\"\n{keys}\n");
        vifd.config = Config { more, max_removals: "100%".into(), ..Config::default() };
        Ok(Host { ovs, vifd })
    }

    pub(crate) fn started(mut self) -> Result<Host> {
        self.vifd.start()?;
        Ok(self)
    }

    /// Makes guests, puts their records and waits until all are ready.
    pub(crate) fn plug<const N: usize>(&mut self, records: [Record; N]) -> Result<[Guest; N]> {
        let guests = records.map(|record| Guest::new(&self.ovs, record));
        let mut made = Vec::new();
        for guest in guests {
            let guest = guest?;
            self.vifd.put(&guest.record)?;
            made.push(guest);
        }
        for guest in &made {
            self.vifd.wait_for(&guest.record.id(), "ready")?;
        }
        made.try_into().ok().context("as many guests as records")
    }

    /// Gives a guest another record, and waits until its flows are those of it.
    pub(crate) fn change(&mut self, guest: &mut Guest, record: Record) -> Result<()> {
        let generation = guest.record.0["generation"].as_u64().unwrap_or_default() + 1;
        guest.record = record.beside("generation", generation);
        self.vifd.put(&guest.record)?;
        self.vifd.wait_until(&guest.record.id(), "its new record, ready", |status| {
            status["phase"] == "ready" && status["observed_generation"] == generation
        })?;
        Ok(())
    }

    pub(crate) fn rows(&self) -> Result<Vec<FlowRow>> {
        self.ovs.flow_rows(BRIDGE)
    }

    pub(crate) fn texts(&self) -> Result<Vec<String>> {
        self.ovs.flow_texts(BRIDGE)
    }

    /// The cookie of a guest's flows.
    pub(crate) fn cookie(&self, guest: &Guest) -> Result<u64> {
        let row = self.ovs.row("Interface", &guest.record.vif_name())?.context("no interface")?;
        let port = row["ofport"].as_u64().context("no port number")?;
        let own = format!("reg5=0x{port:x}");
        let rows = self.rows()?;
        let sent = rows.iter().find(|row| (row.table, row.priority) == places::SENT && row.matching == own);
        Ok(sent.with_context(|| format!("no flow of {own}"))?.cookie)
    }

    /// Packets that the flows of a guest at a place have counted.
    pub(crate) fn counted(&self, guest: &Guest, place: (u8, u16)) -> Result<u64> {
        let cookie = self.cookie(guest)?;
        let rows = self.rows()?;
        let there = rows.iter().filter(|row| row.cookie == cookie && (row.table, row.priority) == place);
        Ok(there.map(|row| row.packets).sum())
    }

    /// Waits until the flows of a guest at a place have counted so many packets: what a packet did is written to flows
    /// with the datapath's own delay.
    pub(crate) fn until_counted(&mut self, guest: &Guest, place: (u8, u16), packets: u64) -> Result<()> {
        let mut last = 0;
        let (ovs, cookie) = (&self.ovs, self.cookie(guest)?);
        self.vifd
            .until(&format!("{packets} packets are counted at {place:?}"), |_| {
                let rows = ovs.flow_rows(BRIDGE)?;
                let there = rows.iter().filter(|row| row.cookie == cookie && (row.table, row.priority) == place);
                last = there.map(|row| row.packets).sum();
                Ok((last >= packets).then_some(()))
            })
            .with_context(|| format!("{last} are"))?;
        anyhow::ensure!(last == packets, "{last} packets are counted at {place:?} instead of {packets}");
        Ok(())
    }

    /// Waits until the bridge has these flows and no other.
    pub(crate) fn until_flows_are(&mut self, what: &str, wanted: &[String]) -> Result<()> {
        let ovs = &self.ovs;
        let there = |_: &Vifd| Ok((ovs.flow_texts(BRIDGE).unwrap_or_default() == wanted).then_some(()));
        self.vifd.until(what, there)
    }

    /// What somebody does with ovs-ofctl.
    pub(crate) fn by_hand(&self, command: &str, what: &str) -> Result<()> {
        self.ovs.of14(command, BRIDGE, &[what]).map(drop)
    }
}
