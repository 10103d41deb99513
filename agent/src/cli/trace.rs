//! `trace`: where a packet would go.

use std::fmt::Write as _;
use std::net::IpAddr;

use serde_json::Value;

use super::output::Output;
use super::vifs::{query, resolve, typed};
use super::{Failure, TraceArgs};
use crate::api::client::Client;
use crate::inspect::Trace;
use crate::model::MacAddr;

pub(super) async fn trace(client: &Client, args: TraceArgs, output: &Output) -> Result<(), Failure> {
    let id = resolve(client, &args.vif).await?;
    let to = match &args.to {
        Some(word) if word.parse::<MacAddr>().is_ok() || word.parse::<IpAddr>().is_ok() => Some(word.clone()),
        Some(word) => Some(resolve(client, word).await?.to_string()),
        None => None,
    };
    let (tcp, udp) = (args.tcp_dst.map(|port| port.to_string()), args.udp_dst.map(|port| port.to_string()));
    let yes = |flag: bool| flag.then_some("true");
    let states = args.ct_next.join(";");
    let target = query(&[
        ("to", to.as_deref()),
        ("arp", yes(args.arp)),
        ("icmp", yes(args.icmp)),
        ("tcp_dst", tcp.as_deref()),
        ("udp_dst", udp.as_deref()),
        ("flow", args.flow.as_deref()),
        ("from_uplink", yes(args.from_uplink)),
        ("ct_next", Some(states.as_str()).filter(|states| !states.is_empty())),
    ]);
    let answer: Value = client.get(&format!("/v1/vifs/{id}/trace{target}")).await?;
    let trace: Trace = typed(&answer)?;
    output.answer(&answer, || if args.raw { trace.text.clone() } else { text(&trace, output) })
}

/// The trace for people: the way, and at the end what became of the packet.
fn text(trace: &Trace, output: &Output) -> String {
    let paint = output.paint;
    let mut text = format!("{} on bridge {}\n", paint.strong(&trace.packet), trace.bridge);
    for assumed in &trace.assumed {
        let _ = writeln!(text, "{}", paint.pending(&format!("  {assumed}")));
    }
    text.push('\n');
    let mut round = 0;
    for step in &trace.steps {
        if step.round > round {
            round = step.round;
            let _ = writeln!(text, "{}", paint.faint("  back from connection tracking"));
        }
        let indent = "  ".repeat(step.depth.min(20));
        if step.continued {
            for action in &step.actions {
                let _ = writeln!(text, "{indent}      {action}");
            }
            continue;
        }
        let name = step.name.as_deref().unwrap_or_default();
        let of = step.of.as_ref().map_or_else(|| "no flow".to_owned(), ToString::to_string);
        let _ = writeln!(text, "{indent}{:>3} {:<24} {of}", step.table, paint.strong(name));
        if !step.flow.is_empty() {
            let _ = writeln!(text, "{indent}      {}", paint.faint(&step.flow));
        }
        for action in &step.actions {
            let _ = writeln!(text, "{indent}      {action}");
        }
    }
    let sentence = match trace.sent.is_empty() {
        true => paint.bad(&trace.sentence),
        false => paint.good(&trace.sentence),
    };
    let _ = writeln!(text, "\n→ {sentence}");
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inspect::{Belongs, Step};

    #[test]
    fn a_trace_for_people() {
        let step = |table, name: &str, of, round, depth, actions: &[&str]| Step {
            table,
            name: Some(name.to_owned()),
            flow: "ip,reg5=0x1, priority 100".into(),
            of,
            cookie: Some("0x5011".into()),
            actions: actions.iter().map(|action| (*action).to_owned()).collect(),
            round,
            depth,
            continued: false,
        };
        let id = crate::model::VifId(uuid::Uuid::nil());
        let vif = Belongs::Vif { id, port: Some("tap1".into()), guest: Some("alice".into()) };
        let trace = Trace {
            bridge: "br-int".into(),
            packet: "in_port=1,icmp".into(),
            assumed: vec!["connection tracking is taken to say trk,new".into()],
            steps: vec![
                step(0, "classify", Some(vif.clone()), 0, 0, &["goto_table:10"]),
                step(31, "egress-rules", Some(Belongs::Bridge), 1, 0, &["drop"]),
                Step { flow: String::new(), ..step(60, "output", None, 1, 2, &["drop"]) },
                Step { continued: true, ..step(31, "egress-rules", None, 1, 0, &["bucket 1"]) },
            ],
            sentence: "dropped, egress_rules (table 31 egress-rules)".into(),
            ..Trace::default()
        };
        insta::assert_snapshot!(text(&trace, &Output::plain()));
    }
}
