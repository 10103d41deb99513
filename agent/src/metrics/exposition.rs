//! Metrics that are rendered from a status snapshot: the host's VIFs as they are at this moment.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::time::SystemTime;

use crate::offload::OffloadCounts;
use crate::plan::{LINKS, NICS, OPENFLOW, OVSDB};
use crate::status::{HostStatus, Phase};

/// A label value with the characters escaped that the text format asks for.
pub(super) struct Label<'a>(pub(super) &'a str);

impl fmt::Display for Label<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for character in self.0.chars() {
            match character {
                '\\' => f.write_str("\\\\")?,
                '"' => f.write_str("\\\"")?,
                '\n' => f.write_str("\\n")?,
                other => f.write_char(other)?,
            }
        }
        Ok(())
    }
}

/// Starts a metric.
pub(super) fn family(text: &mut String, name: &str, kind: &str, help: &str) {
    line(text, format_args!("# HELP {name} {help}\n# TYPE {name} {kind}"));
}

/// Writing into a `String` cannot fail.
pub(super) fn line(text: &mut String, arguments: fmt::Arguments<'_>) {
    let _ = writeln!(text, "{arguments}");
}

/// The VIFs of the host, and what is in their way.
pub(super) fn host(text: &mut String, status: &HostStatus, today: SystemTime) {
    let mut phases: BTreeMap<Phase, usize> = Phase::ALL.into_iter().map(|phase| (phase, 0)).collect();
    for vif in status.vifs.values() {
        *phases.entry(vif.phase).or_default() += 1;
    }
    family(text, "vifd_vifs", "gauge", "VIFs by phase.");
    for (phase, count) in phases {
        line(text, format_args!("vifd_vifs{{phase=\"{phase}\"}} {count}"));
    }
    family(text, "vifd_vif_ready", "gauge", "Whether traffic of the VIF can pass.");
    for (id, vif) in &status.vifs {
        let (bridge, kind) = (Label(vif.facts.bridge.as_deref().unwrap_or_default()), Label(&vif.kind));
        let ready = u8::from(vif.phase == Phase::Ready);
        line(text, format_args!("vifd_vif_ready{{vif=\"{id}\",bridge=\"{bridge}\",type=\"{kind}\"}} {ready}"));
    }
    family(text, "vifd_vif_phase_seconds", "gauge", "How long the VIF has been in its phase.");
    for (id, vif) in &status.vifs {
        line(text, format_args!("vifd_vif_phase_seconds{{vif=\"{id}\"}} {:.3}", vif.age(today).as_secs_f64()));
    }
    family(
        text,
        "vifd_vif_flows",
        "gauge",
        "Flows of the VIF in the datapath, by where they are; of VIFs alone whose flows are to be in hardware.",
    );
    for (id, vif) in &status.vifs {
        let Some(OffloadCounts { offloaded_flows, software_flows, .. }) = vif.facts.offload.as_deref() else {
            continue;
        };
        for (state, flows) in [("offloaded", offloaded_flows), ("software", software_flows)] {
            line(text, format_args!("vifd_vif_flows{{vif=\"{id}\",state=\"{state}\"}} {flows}"));
        }
    }
    family(text, "vifd_holds", "gauge", "Operations that were refused and wait to be tried again.");
    for backend in [OVSDB, LINKS, NICS, OPENFLOW] {
        let holds = status.holds.get(backend).copied().unwrap_or_default();
        line(text, format_args!("vifd_holds{{backend=\"{backend}\"}} {holds}"));
    }
    family(text, "vifd_foreign_conflicts", "gauge", "Objects of others that are in the way of a wanted VIF.");
    line(text, format_args!("vifd_foreign_conflicts {}", status.foreign_conflicts));
}

/// What this program is.
pub(super) fn build(text: &mut String) {
    family(text, "vifd_build_info", "gauge", "Always 1; the labels say what was built.");
    line(text, format_args!("vifd_build_info{{version=\"{}\"}} 1", env!("CARGO_PKG_VERSION")));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_escaped() {
        assert_eq!(Label("a\\b\"c\nd").to_string(), r#"a\\b\"c\nd"#);
    }
}
