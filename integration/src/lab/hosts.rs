//! Two hosts side by side: what os-vif does on one, vifd has to come to on the other.

use anyhow::{Context, Result};

use super::compare::{Host, differences};
use super::namespace::Namespace;
use super::osvif::OsVif;
use super::ovs::{Ovs, Switch};
use super::record::Record;
use super::vifd::Vifd;

/// Collections in which nothing may be that os-vif did not make.
const EXACT: &[&str] = &["/bridges", "/ports", "/interfaces", "/links", "/qos"];

/// os-vif on a host of its own, and vifd on another.
#[derive(Debug)]
pub struct Hosts {
    /// os-vif's.
    pub theirs: Ovs,
    /// Works on `theirs`.
    pub osvif: OsVif,
    /// vifd's.
    pub ours: Ovs,
    /// Works on `ours`.
    pub vifd: Vifd,
}

impl Hosts {
    /// Starts a vifd on `ours`, with more keys of `[defaults]`, as lines.
    ///
    /// # Errors
    /// As [`Vifd::start`].
    pub fn start(theirs: Ovs, osvif: OsVif, ours: Ovs, defaults: &str) -> Result<Hosts> {
        let mut vifd = Vifd::beside(&ours)?;
        vifd.config.defaults = defaults.into();
        vifd.start()?;
        Ok(Hosts { theirs, osvif, ours, vifd })
    }

    /// Plugs on both, and waits until they are the same.
    ///
    /// # Errors
    /// When os-vif cannot, or as [`Hosts::same`].
    pub fn plug(&mut self, records: &[Record]) -> Result<()> {
        for record in records {
            self.osvif.plug(record)?;
            self.vifd.put(record)?;
        }
        self.same()
    }

    /// Unplugs on both, and waits until vifd has done it.
    ///
    /// # Errors
    /// When one of them cannot.
    pub fn unplug(&mut self, record: &Record) -> Result<()> {
        self.osvif.unplug(record)?;
        self.vifd.remove(record)?;
        self.vifd.wait_gone(&record.id())
    }

    /// Waits until vifd's host has what os-vif's has; vifd may add keys to rows. It may take several steps, and os-vif
    /// has returned.
    ///
    /// # Errors
    /// When it never has; with what differs and the end of vifd's log.
    pub fn same(&mut self) -> Result<()> {
        let model = Host::observe(&self.theirs)?;
        self.becomes(&model)
    }

    /// Waits until vifd's host has what another has, or had.
    ///
    /// # Errors
    /// As [`Hosts::same`].
    pub fn becomes(&mut self, model: &Host) -> Result<()> {
        let (ours, mut last) = (&self.ours, Vec::new());
        let done = self.vifd.until("vifd's host is as its model", |_| {
            last = differences(&model.0, &Host::observe(ours)?.0, EXACT);
            Ok(last.is_empty().then_some(()))
        });
        done.with_context(|| format!("vifd's host differs from its model:\n{}", last.join("\n")))
    }
}

/// Two hosts on which `eth1` has the host's address, 192.0.2.5, and the way to everywhere; with the namespaces that are
/// outside of each.
///
/// # Errors
/// As [`Ovs::start`].
pub fn uplinked() -> Result<([Ovs; 2], [Namespace; 2])> {
    let hosts = [Ovs::start(Switch::Dummy)?, Ovs::start(Switch::Dummy)?];
    let outside = [Namespace::new()?, Namespace::new()?];
    for (host, outside) in hosts.iter().zip(&outside) {
        let host = host.namespace();
        outside.veth("there", host, "eth1", Some("02:00:00:00:00:01"), Some("192.0.2.5/24"))?;
        outside.run("ip", ["addr", "add", "192.0.2.1/24", "dev", "there"])?;
        host.run("ip", ["route", "add", "default", "via", "192.0.2.1", "metric", "50"])?;
    }
    Ok((hosts, outside))
}
