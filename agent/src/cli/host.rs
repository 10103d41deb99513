//! `status`, `plan`, `pause`, `resume`, `release`, `confirm-removals`: the host as a whole.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use super::output::{Format, Output, Paint};
use super::picture::{Canvas, draw};
use super::vifs::{all, resolve};
use super::{Common, Failure};
use crate::api::body::{Confirmed, HostSummary, Paused, PlanView, Released};
use crate::api::client::Client;
use crate::inspect::BridgeFlows;
use crate::plan::Facts;

/// Changes come in groups: one drawing shows them.
const CALM: Duration = Duration::from_millis(100);
/// What is not a VIF's is looked at again so often.
const REDRAW: Duration = Duration::from_secs(2);

pub(super) async fn status(client: &Client, watch: bool, whole: bool, output: &Output) -> Result<(), Failure> {
    if !watch {
        return draw_once(client, whole, output).await;
    }
    let mut events = client.watch("/v1/vifs?watch=true").await?;
    loop {
        if output.terminal && output.format == Format::Table {
            // Home, and clear to the end.
            output.text("\u{1b}[H\u{1b}[2J");
        }
        draw_once(client, whole, output).await?;
        match timeout(REDRAW, events.next()).await {
            Ok(Ok(Some(_))) => sleep(CALM).await,
            Ok(Ok(None)) => return Err(Failure::Other("the agent ended the list".into())),
            Ok(Err(error)) => return Err(error.into()),
            Err(_) => {}
        }
        // What else came until then is on the next drawing.
        while let Ok(event) = timeout(Duration::ZERO, events.next()).await {
            event?;
        }
    }
}

async fn draw_once(client: &Client, whole: bool, output: &Output) -> Result<(), Failure> {
    let host: HostSummary = client.get("/v1/status").await?;
    let vifs = all(client).await?;
    let mut answer = json!(host);
    answer["vifs"] = json!(vifs);
    let canvas = Canvas { width: output.width, paint: output.paint, all: whole };
    // What an older agent does not know is not drawn.
    let bridges: Vec<BridgeFlows> = client.get("/v1/bridges").await.unwrap_or_default();
    output.answer(&answer, || {
        draw(&host, &vifs, canvas) + &of_others(&bridges, output.paint) + &of_nics(&host.hindered, output.paint)
    })
}

/// Bridges that somebody else has, and flows of others by which packets may go although every VIF is ready.
fn of_others(bridges: &[BridgeFlows], paint: Paint) -> String {
    let mut text = String::new();
    for BridgeFlows { unmanaged, .. } in bridges.iter().filter(|bridge| !bridge.unmanaged.is_empty()) {
        let _ = writeln!(text, "\n{} not managed: {unmanaged}", paint.bad("✗"));
    }
    for BridgeFlows { bridge, foreign_above, .. } in bridges.iter().filter(|bridge| bridge.foreign_above > 0) {
        let flows = if *foreign_above == 1 { "flow of somebody else stands" } else { "flows of somebody else stand" };
        let _ = writeln!(text, "\n{} {bridge}: {foreign_above} {flows} above vifd's (`vifd doctor`)", paint.bad("✗"));
    }
    text
}

/// NICs that are not as they are configured to be.
fn of_nics(hindered: &BTreeMap<String, String>, paint: Paint) -> String {
    let line = |(nic, reason)| format!("\n{} NIC {nic} is not as configured: {reason}\n", paint.bad("✗"));
    hindered.iter().map(line).collect()
}

pub(super) async fn plan(client: &Client, output: &Output) -> Result<(), Failure> {
    let answer: Value = client.get("/v1/plan").await?;
    let plan: PlanView = serde_json::from_value(answer.clone())
        .map_err(|error| crate::api::client::ClientError::Garbled(error.to_string()))?;
    output.answer(&answer, || plan_text(&plan, output))
}

fn plan_text(plan: &PlanView, output: &Output) -> String {
    let paint = output.paint;
    let mut text = String::new();
    let waits = !plan.not_ready.is_empty() || plan.unready.iter().any(|vif| vif.reason == "Paused");
    if plan.operations.is_empty() && plan.paused {
        text.push_str("Nothing changes: the agent is paused until `vifd resume`.\n");
    } else if plan.operations.is_empty() && waits {
        text.push_str("Nothing can be done for now.\n");
    } else if plan.operations.is_empty() {
        text.push_str("Nothing would change.\n");
    } else {
        let rows = plan.operations.iter().map(|operation| {
            let vif = operation.vif.map_or("several".into(), |vif| vif.to_string());
            vec![operation.backend.clone().into(), vif.into(), operation.action.clone().into()]
        });
        text.push_str(&output.uncut().table(&["BACKEND", "VIF", "OPERATION"], rows));
    }
    if plan.paused && !plan.operations.is_empty() {
        // The marks of a release.
        text.push_str("\nThe agent is paused: nothing else is done until `vifd resume`.\n");
    } else if plan.mode == "observe" && !plan.operations.is_empty() {
        text.push_str("\nThe agent observes only (agent.mode): nothing of it is done.\n");
    }
    if !plan.not_ready.is_empty() {
        text.push_str(&paint.strong("\nWhy there may be more to do\n"));
        for sentence in &plan.not_ready {
            let _ = writeln!(text, "  {sentence}");
        }
    }
    if !plan.stopped_removals.is_empty() {
        let count = plan.stopped_removals.len();
        let _ = writeln!(text, "\n{count} VIFs are not removed until `vifd confirm-removals`:");
        for id in &plan.stopped_removals {
            let known = plan.unready.iter().find(|vif| vif.vif == *id);
            let place = known.map(|vif| place(vif.port.as_deref(), vif.bridge.as_deref())).unwrap_or_default();
            let _ = writeln!(text, "  {id}{place}");
        }
    }
    if !plan.paused_vifs.is_empty() {
        text.push_str("\nPaused, each until\n");
        for id in &plan.paused_vifs {
            let _ = writeln!(text, "  vifd resume {id}");
        }
    }
    let mut unready = plan.unready.iter().filter(|vif| !plan.stopped_removals.contains(&vif.vif)).peekable();
    if unready.peek().is_some() {
        text.push_str(&paint.strong("\nNot ready\n"));
        for vif in unready {
            let phase = paint.phase(vif.phase, vif.phase.name());
            let _ = writeln!(text, "  {} {phase}: {}", vif.vif, vif.message);
        }
    }
    text
}

/// `, port tap1 on bridge br-int`, as far as it is known.
fn place(port: Option<&str>, bridge: Option<&str>) -> String {
    let port = port.map(|port| format!(", port {port}")).unwrap_or_default();
    let bridge = bridge.map(|bridge| format!(" on bridge {bridge}")).unwrap_or_default();
    port + &bridge
}

pub(super) async fn pause(client: &Client, vif: Option<&str>, pause: bool, output: &Output) -> Result<(), Failure> {
    let verb = if pause { "pause" } else { "resume" };
    let parameter = match vif {
        Some(word) => format!("?vif={}", resolve(client, word).await?),
        None => String::new(),
    };
    let answer: Paused = client.post(&format!("/v1/{verb}{parameter}")).await?;
    output.answer(&answer, || match (answer.vif, answer.paused) {
        (Some(id), true) => format!("VIF {id} is left as it is until `vifd resume {id}`.\n"),
        (Some(id), false) => format!("VIF {id} is looked after again.\n"),
        (None, true) => "Everything is left as it is until `vifd resume`.\n".into(),
        (None, false) => "The host is looked after again.\n".into(),
    })
}

pub(super) async fn release(common: &Common, yes: bool, output: &Output) -> Result<(), Failure> {
    if !yes {
        return Err(Failure::Other(
            "this takes vifd's marks off every port and link of this host: they and their traffic stay, and nobody \
             looks after them any more. Say `vifd release --yes` if that is meant"
                .into(),
        ));
    }
    let answer: Released = common.client()?.post("/v1/release").await?;
    output.answer(&answer, || {
        format!(
            "{} marks were taken off. The agent is paused; traffic goes on. To take the ports over again: adopt = \
             \"os-vif\" under [agent], `systemctl reload vifd`, `vifd resume`.\n",
            answer.released
        )
    })
}

pub(super) async fn confirm_removals(client: &Client, output: &Output) -> Result<(), Failure> {
    // Afterwards nothing may know any more what they were.
    let vifs = all(client).await?;
    let answer: Confirmed = client.post("/v1/confirm-removals").await?;
    output.answer(&answer, || {
        if answer.confirmed.is_empty() {
            return "No removal is waiting.\n".into();
        }
        let mut text = format!("{} VIFs are removed now:\n", answer.confirmed.len());
        for id in &answer.confirmed {
            let facts = vifs.iter().find(|vif| vif.id == *id).map(|vif| &vif.facts);
            let of = |facts: &Facts| {
                let device = facts.netdev.as_deref().or(facts.guest_device.as_deref());
                place(facts.port.as_deref().or(device), facts.bridge.as_deref().or(facts.linux_bridge.as_deref()))
            };
            let _ = writeln!(text, "  {id}{}", facts.map(|facts| of(facts)).unwrap_or_default());
        }
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::body::Unready;
    use crate::status::PlannedOp;

    #[test]
    fn flows_of_others_above_ours_are_told_of() {
        let bridge = |name: &str, foreign_above| BridgeFlows {
            bridge: name.into(),
            up: true,
            foreign_above,
            ..BridgeFlows::default()
        };
        let theirs = BridgeFlows { unmanaged: "bridge br-d is OVN's".into(), ..bridge("br-d", 0) };
        let text = of_others(&[bridge("br-a", 0), bridge("br-b", 1), bridge("br-c", 2), theirs], Paint(false));
        let expected = "\n✗ not managed: bridge br-d is OVN's\n\
                        \n✗ br-b: 1 flow of somebody else stands above vifd's (`vifd doctor`)\n\
                        \n✗ br-c: 2 flows of somebody else stand above vifd's (`vifd doctor`)\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn a_nic_that_is_hindered_is_told_of() {
        assert_eq!(of_nics(&BTreeMap::new(), Paint(false)), "");
        let hindered = [("pci/0000:03:00.0".to_owned(), "it has no eswitch".to_owned())].into();
        let expected = "\n✗ NIC pci/0000:03:00.0 is not as configured: it has no eswitch\n";
        assert_eq!(of_nics(&hindered, Paint(false)), expected);
    }

    #[test]
    fn a_plan_says_what_and_why_nothing_is_done() {
        let output = Output { format: Format::Table, paint: Paint(false), terminal: false, width: 100 };
        let mut plan = PlanView {
            revision: 1,
            mode: "observe".into(),
            not_ready: vec![],
            paused: false,
            paused_vifs: vec![],
            operations: vec![],
            stopped_removals: vec![],
            unready: vec![],
        };
        assert_eq!(plan_text(&plan, &output), "Nothing would change.\n");
        plan.operations.push(PlannedOp { backend: "links".into(), vif: None, action: "create tap tap1".into() });
        let text = plan_text(&plan, &output);
        assert!(text.contains("create tap tap1") && text.contains("observes only"), "{text}");
        plan.paused = true;
        assert!(plan_text(&plan, &output).contains("vifd resume"));

        plan.operations.clear();
        let text = plan_text(&plan, &output);
        assert!(text.contains("is paused") && !text.contains("Nothing would change"), "{text}");
        plan.paused = false;
        plan.paused_vifs = vec!["dc065497-3c8d-4f44-8fb4-e1d33c16a536".parse().unwrap()];
        assert!(plan_text(&plan, &output).contains("Nothing would change"), "it needs nothing");
        plan.not_ready = vec!["the Open vSwitch database is not synchronised".into()];
        let text = plan_text(&plan, &output);
        assert!(text.contains("not synchronised") && !text.contains("Nothing would change"), "{text}");

        let id: crate::model::VifId = "dc065497-3c8d-4f44-8fb4-e1d33c16a536".parse().unwrap();
        plan.stopped_removals = vec![id];
        plan.unready = vec![Unready {
            vif: id,
            bridge: Some("br-int".into()),
            port: Some("tap1".into()),
            phase: crate::status::Phase::Removing,
            reason: "RemovalStopped".into(),
            message: String::new(),
        }];
        let text = plan_text(&plan, &output);
        assert!(text.contains("16a536, port tap1 on bridge br-int"), "{text}");
        assert!(!text.contains("Not ready"), "told once: {text}");
    }
}
