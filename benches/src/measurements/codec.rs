//! One flow into octets and out of them, beside other OpenFlow codecs.

use std::hint::black_box;
use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::BytesMut;
use flows::{Flow, FlowCommand, FlowMod, FlowStats};
use rovs_openflow::{ActionList, FlowStatsEntry, InstructionList, Match};

use super::stage::Stage;
use crate::finding::times;
use crate::timing::least;
use crate::{Chart, Finding, Role, Unit, peer};

const VIFD: &str = "vifd";
const ROVS: &str = "rovs-openflow";
const OS_KEN: &str = "os-ken";

/// What every codec here has words for. Registers, which the managed pipeline lives of, rovs-openflow has not.
const TEXT: &str = "cookie=0x5eed000000000001, table=12, priority=100,ip,in_port=7,dl_src=52:54:00:01:02:03,\
                    nw_src=10.1.2.3 actions=set_field:52:54:00:0a:0b:0c->eth_dst,output:9";

/// Flows in the reply to a dump, as many as fit into one message, and runs of each side.
const FLOWS: u32 = 500;

fn ours() -> Result<Flow> {
    TEXT.parse().context("the flow of this bench")
}

fn theirs() -> rovs_openflow::Flow {
    let matching = Match::new()
        .in_port(7)
        .eth_src([0x52, 0x54, 0, 1, 2, 3])
        .eth_type(0x0800)
        .ipv4_src(Ipv4Addr::new(10, 1, 2, 3), 32);
    let actions = ActionList::new().set_eth_dst([0x52, 0x54, 0, 0x0a, 0x0b, 0x0c]).output(9u32);
    rovs_openflow::Flow::add()
        .table(12)
        .priority(100)
        .cookie(0x5eed_0000_0000_0001)
        .match_fields(matching)
        .actions(actions)
}

/// The body of a reply with these flows.
fn reply(flow: &Flow) -> BytesMut {
    let stats = FlowStats { flow: flow.clone(), duration: Duration::from_secs(5), packet_count: 6, byte_count: 7 };
    let mut body = BytesMut::new();
    for _ in 0..FLOWS {
        stats.encode(&mut body);
    }
    body
}

/// Seconds for each flow, of the best of many runs over all.
fn each(mut work: impl FnMut()) -> f64 {
    least(50, &mut work).as_secs_f64() / f64::from(FLOWS)
}

fn encode(flow: &Flow) -> f64 {
    let mut out = BytesMut::new();
    let change = FlowMod::new(FlowCommand::Add, flow.clone());
    each(|| {
        out.clear();
        for _ in 0..FLOWS {
            black_box(&change).encode(&mut out);
        }
        black_box(&out);
    })
}

fn encode_theirs(flow: &rovs_openflow::Flow) -> f64 {
    each(|| {
        for _ in 0..FLOWS {
            black_box(black_box(flow).encode());
        }
    })
}

fn decode_theirs(body: &[u8]) -> rovs_openflow::Result<Vec<(FlowStatsEntry, InstructionList)>> {
    let mut rest = body;
    let mut found = Vec::new();
    while !rest.is_empty() {
        let (entry, length) = FlowStatsEntry::decode(rest)?;
        let instructions = entry.decoded_instructions()?;
        found.push((entry, instructions));
        rest = &rest[length..];
    }
    Ok(found)
}

/// Measures.
pub(super) fn measure(_: &mut Stage) -> Result<Finding> {
    let mut finding = Finding::new(
        "codec",
        "A flow into octets and out of them",
        "One flow, whole: a match of four fields and two actions. Written as a change, and read out of a reply to a dump
         of 500, instructions and all. Time for each flow, of the least of fifty runs; os-ken in an interpreter that
         has long been started. What each of them writes is read by vifd and found to be the same flow.",
    );
    let flow = ours()?;
    let body = reply(&flow);
    let rovs = theirs();
    let read = FlowMod::decode(&rovs.encode())?.flow;
    ensure!(read.matching == flow.matching && read.instructions == flow.instructions, "rovs-openflow writes {read}");
    ensure!(decode_theirs(&body)?.len() == FLOWS as usize, "rovs-openflow reads another number of flows");
    let os_ken = peer::os_ken(&body, FLOWS)?;
    let read = FlowMod::decode(&os_ken.octets)?.flow;
    ensure!(read.matching == flow.matching && read.instructions == flow.instructions, "os-ken writes {read}");

    let decode = each(|| drop(black_box(FlowStats::decode_all(black_box(&body)))));
    let decoded_by_rovs = each(|| drop(black_box(decode_theirs(black_box(&body)))));
    let mut chart = Chart::new("codec", "One flow into octets (1) and out of them (2)", "direction", Unit::Seconds);
    let sides = [
        (VIFD, Role::Ours, encode(&flow), decode),
        (ROVS, Role::Peer, encode_theirs(&rovs), decoded_by_rovs),
        (OS_KEN, Role::Peer, os_ken.encode, os_ken.decode),
    ];
    for (who, role, encode, decode) in sides {
        chart.add(who, role, 1.0, vec![encode]);
        chart.add(who, role, 2.0, vec![decode]);
    }
    for who in [ROVS, OS_KEN] {
        for (x, what) in [(1.0, "written"), (2.0, "read")] {
            finding.at_least(&format!("a flow {what}, beside {who}"), chart.ratio(who, VIFD, x), 1.0, |ratio| {
                format!("{} as fast", times(ratio))
            });
        }
    }
    finding.charts.push(chart);
    Ok(finding)
}
