//! Metrics of flows: what switches counted for VIFs, and what there is on each managed bridge.

use std::time::SystemTime;

use super::exposition::{Label, family, line};
use crate::inspect::{BridgeCounts, FlowMetrics};

/// All of it. Without a managed bridge there is none of it.
pub(super) fn flows(text: &mut String, metrics: &FlowMetrics) {
    if metrics.bridges.is_empty() {
        return;
    }
    let directions = |traffic: &crate::inspect::Traffic| [("egress", traffic.egress), ("ingress", traffic.ingress)];
    family(text, "vifd_vif_packets_total", "counter", "Packets that the flows of a VIF let pass, by direction.");
    for (id, traffic) in &metrics.vifs {
        for (direction, count) in directions(traffic) {
            let packets = count.packets;
            line(text, format_args!("vifd_vif_packets_total{{vif=\"{id}\",direction=\"{direction}\"}} {packets}"));
        }
    }
    family(text, "vifd_vif_bytes_total", "counter", "Octets that the flows of a VIF let pass, by direction.");
    for (id, traffic) in &metrics.vifs {
        for (direction, count) in directions(traffic) {
            let bytes = count.bytes;
            line(text, format_args!("vifd_vif_bytes_total{{vif=\"{id}\",direction=\"{direction}\"}} {bytes}"));
        }
    }
    let help = "Packets that the flows of a VIF dropped, by reason; reasons without any are left out.";
    family(text, "vifd_vif_dropped_packets_total", "counter", help);
    for (id, traffic) in &metrics.vifs {
        for (reason, packets) in &traffic.dropped {
            line(text, format_args!("vifd_vif_dropped_packets_total{{vif=\"{id}\",reason=\"{reason}\"}} {packets}"));
        }
    }
    family(text, "vifd_bridge_dropped_packets_total", "counter", "Packets dropped by flows that are of no VIF alone.");
    for bridge in &metrics.bridges {
        let name = Label(&bridge.flows.bridge);
        for (reason, packets) in &bridge.dropped {
            let labels = format_args!("bridge=\"{name}\",reason=\"{reason}\"").to_string();
            line(text, format_args!("vifd_bridge_dropped_packets_total{{{labels}}} {packets}"));
        }
    }
    gauge(text, metrics, "vifd_bridge_flows", "Flows of vifd's on a bridge.", |bridge| bridge.flows.flows);
    gauge(text, metrics, "vifd_bridge_groups", "Groups of vifd's on a bridge.", |bridge| bridge.flows.groups);
    gauge(text, metrics, "vifd_bridge_meters", "Meters of vifd's on a bridge.", |bridge| bridge.flows.meters);
    let help = "Flows of others on a bridge.";
    gauge(text, metrics, "vifd_bridge_foreign_flows", help, |bridge| bridge.flows.foreign_flows);
    let help = "Flows of others that stand above one of vifd's in its table.";
    gauge(text, metrics, "vifd_bridge_foreign_flows_above", help, |bridge| bridge.flows.foreign_above);
    let help = "When the counters of a bridge's flows were read last, since the Unix epoch.";
    family(text, "vifd_bridge_counters_read_timestamp_seconds", "gauge", help);
    for bridge in &metrics.bridges {
        let since = bridge.read.and_then(|read| read.duration_since(SystemTime::UNIX_EPOCH).ok());
        let (name, seconds) = (Label(&bridge.flows.bridge), since.unwrap_or_default().as_secs_f64());
        line(text, format_args!("vifd_bridge_counters_read_timestamp_seconds{{bridge=\"{name}\"}} {seconds:.3}"));
    }
}

/// A number for each bridge that can be seen.
fn gauge(text: &mut String, metrics: &FlowMetrics, name: &str, help: &str, value: impl Fn(&BridgeCounts) -> usize) {
    family(text, name, "gauge", help);
    for bridge in metrics.bridges.iter().filter(|bridge| bridge.flows.up) {
        line(text, format_args!("{name}{{bridge=\"{}\"}} {}", Label(&bridge.flows.bridge), value(bridge)));
    }
}
