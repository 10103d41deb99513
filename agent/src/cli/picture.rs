//! The host drawn in box characters: a box for each bridge with its VIFs, worst first, and what is wrong below.
//! Pure.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use super::output::{Paint, cut, mark, pad, wrap};
use crate::api::body::HostSummary;
use crate::model::VifId;
use crate::status::{ConditionKind, Phase, Truth, VifStatus};

/// Rows of one bridge, unless all are asked for.
const ROWS: usize = 24;

/// How to draw.
#[derive(Clone, Copy, Debug)]
pub(super) struct Canvas {
    pub(super) width: usize,
    pub(super) paint: Paint,
    /// Every VIF, however many there are.
    pub(super) all: bool,
}

/// Draws the host.
pub(super) fn draw(host: &HostSummary, vifs: &[Arc<VifStatus>], canvas: Canvas) -> String {
    let paint = canvas.paint;
    let mut text = headline(host, paint);
    let peers = host.sessions.iter().map(|session| session.peer.chars().count()).max().unwrap_or(0).max(8);
    for session in &host.sessions {
        let sign = if session.up { paint.good("✓") } else { paint.bad("✗") };
        let details = wrap(&session.detail, canvas.width.saturating_sub(6 + peers));
        line(&mut text, &format!("  {sign} {}  {}", pad(&session.peer, peers), details[0]));
        for more in &details[1..] {
            line(&mut text, &format!("{}{more}", " ".repeat(6 + peers)));
        }
    }
    let mut bridges: BTreeMap<Option<(&str, &str)>, Vec<&VifStatus>> = BTreeMap::new();
    for vif in vifs {
        let of_ovs = vif.facts.bridge.as_deref().map(|bridge| (bridge, ""));
        let of_kernel = || vif.facts.linux_bridge.as_deref().map(|bridge| (bridge, " (Linux bridge)"));
        bridges.entry(of_ovs.or_else(of_kernel)).or_default().push(vif);
    }
    // Those on no bridge come first in the order of keys and last in the picture.
    let alone = bridges.remove(&None);
    let columns = Columns::of(vifs);
    for (bridge, vifs) in bridges {
        let (name, kind) = bridge.unwrap_or_default();
        boxed(&mut text, &format!("{name}{kind}"), vifs, columns, canvas);
    }
    if let Some(vifs) = alone {
        boxed(&mut text, "on no bridge", vifs, columns, canvas);
    }
    if vifs.is_empty() {
        line(&mut text, "\nNo VIFs. `vifd plug FILE` hands one in.");
    }
    wrongs(&mut text, host, paint);
    paused(&mut text, host, vifs, paint);
    text
}

fn line(text: &mut String, content: &str) {
    // Writing into a String cannot fail.
    let _ = writeln!(text, "{}", content.trim_end());
}

fn headline(host: &HostSummary, paint: Paint) -> String {
    let state = if host.ready { paint.good("ready") } else { paint.bad("not ready") };
    let paused = if host.paused { format!(" · {}", paint.pending("paused")) } else { String::new() };
    let mut counts: Vec<String> = Vec::new();
    for phase in Phase::ALL {
        if let Some(count) = host.phases.get(&phase).filter(|count| **count > 0) {
            counts.push(paint.phase(phase, &format!("{count} {phase}")));
        }
    }
    let counts = if counts.is_empty() { "none".into() } else { counts.join(", ") };
    format!(
        "{}  vifd {} · agent {} · {}{paused} · {state}\nVIFs: {counts}\n",
        paint.strong(&host.host),
        host.version,
        host.agent,
        host.mode
    )
}

/// Widths of the columns, the same for all bridges.
#[derive(Clone, Copy)]
struct Columns {
    port: usize,
    address: usize,
    guest: usize,
}

impl Columns {
    fn of(vifs: &[Arc<VifStatus>]) -> Columns {
        let longest = |of: &dyn Fn(&VifStatus) -> String, most: usize| {
            vifs.iter().map(|vif| of(vif).chars().count()).max().unwrap_or(0).min(most)
        };
        Columns { port: longest(&port, 20), address: longest(&address, 36), guest: longest(&guest, 24) }
    }
}

/// What people know the VIF by on this host.
pub(super) fn port(vif: &VifStatus) -> String {
    match vif.facts.name() {
        Some(name) => name.into_owned(),
        None => vif.id.to_string().chars().take(13).collect(),
    }
}

/// The phase, with a star where the newest record is refused and the one before it is in force.
pub(super) fn standing(vif: &VifStatus) -> String {
    if is_behind(vif) { format!("{}*", vif.phase) } else { vif.phase.to_string() }
}

/// Whether an update of it was refused.
pub(super) fn is_behind(vif: &VifStatus) -> bool {
    let refused = vif.condition(ConditionKind::Accepted).is_some_and(|accepted| accepted.status == Truth::False);
    // Without a good record before it, it failed and says so.
    refused && vif.phase != Phase::Failed
}

fn address(vif: &VifStatus) -> String {
    let mac = vif.facts.mac.map(|mac| mac.to_string());
    let more = if vif.addresses.len() > 1 { format!(" +{}", vif.addresses.len() - 1) } else { String::new() };
    let ip = vif.addresses.first().map(|ip| format!("{ip}{more}"));
    mac.into_iter().chain(ip).collect::<Vec<_>>().join(" ")
}

fn guest(vif: &VifStatus) -> String {
    vif.instance.clone().unwrap_or_default()
}

/// What needs somebody comes first.
fn urgency(vif: &VifStatus) -> u8 {
    match vif.phase {
        Phase::Failed | Phase::Conflict => 0,
        Phase::Waiting | Phase::Working | Phase::Pending | Phase::Removing => 1,
        Phase::Plugged => 2,
        Phase::Ready => 3,
    }
}

fn boxed(text: &mut String, title: &str, mut vifs: Vec<&VifStatus>, columns: Columns, canvas: Canvas) {
    let Canvas { paint, width, all } = canvas;
    vifs.sort_by_key(|vif| (urgency(vif), port(vif)));
    let hidden = if all { 0 } else { vifs.len().saturating_sub(ROWS) };
    let shown = vifs.len() - hidden;
    let Columns { port: ports, address: addresses, guest: guests } = columns;
    let row = 2 + ports + 2 + 8 + 2 + addresses + 2 + guests;
    let sentences = vifs[..shown].iter().filter(|vif| vif.phase != Phase::Ready);
    let longest = sentences.map(|vif| 4 + vif.message.chars().count()).max().unwrap_or(0);
    let inner = row.max(longest).max(title.chars().count() + 4).max(40).min(width.saturating_sub(4));
    let rule = "─".repeat((inner + 1).saturating_sub(title.chars().count() + 2));
    line(text, &format!("\n┌─ {} {rule}┐", paint.strong(title)));
    let mut content = |plain: &str, colour: &dyn Fn(&str) -> String| {
        line(text, &format!("│ {} │", colour(&pad(&cut(plain, inner), inner))));
    };
    for vif in &vifs[..shown] {
        let plain = format!(
            "{} {}  {}  {}  {}",
            mark(vif.phase),
            pad(&cut(&port(vif), ports), ports),
            pad(&standing(vif), 8),
            pad(&cut(&address(vif), addresses), addresses),
            cut(&guest(vif), guests)
        );
        content(&plain, &|text| paint.phase(vif.phase, text));
        if vif.phase != Phase::Ready {
            for part in wrap(&vif.message, inner.saturating_sub(4)) {
                content(&format!("    {part}"), &|text| paint.faint(text));
            }
        }
    }
    if hidden > 0 {
        let worst = vifs[shown..].iter().filter(|vif| vif.phase != Phase::Ready).count();
        let state = if worst == 0 { "all ready".into() } else { format!("{worst} of them not ready") };
        content(&format!("  and {hidden} more, {state} (`vifd status --all`)"), &|text| paint.faint(text));
    }
    line(text, &format!("└{}┘", "─".repeat(inner + 2)));
}

fn wrongs(text: &mut String, host: &HostSummary, paint: Paint) {
    let mut wrongs: Vec<String> = host.not_ready.iter().map(|reason| format!("not ready: {reason}")).collect();
    for rejection in &host.rejections {
        let field = if rejection.field.is_empty() { String::new() } else { format!("{}: ", rejection.field) };
        wrongs.push(format!("record {} is refused: {field}{}", rejection.record, rejection.reason));
    }
    if host.rejected > host.rejections.len() {
        wrongs.push(format!("{} more records are refused", host.rejected - host.rejections.len()));
    }
    for (backend, holds) in host.holds.iter().filter(|(_, holds)| **holds > 0) {
        let operations = if *holds == 1 { "operation" } else { "operations" };
        wrongs.push(format!("{backend} refused {holds} {operations}, tried again later"));
    }
    if !wrongs.is_empty() {
        text.push('\n');
    }
    for wrong in wrongs {
        line(text, &format!("{} {wrong}", paint.bad("✗")));
    }
}

/// Who is left alone on request.
fn paused(text: &mut String, host: &HostSummary, vifs: &[Arc<VifStatus>], paint: Paint) {
    let name = |id: &VifId| vifs.iter().find(|vif| vif.id == *id).map_or_else(|| id.to_string(), |vif| port(vif));
    let names: Vec<String> = host.paused_vifs.iter().map(name).collect();
    if !names.is_empty() {
        line(text, &format!("\n{} paused: {} (`vifd resume {}`)", paint.pending("‖"), names.join(", "), names[0]));
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::plan::Facts;
    use crate::source::Rejection;
    use crate::status::{Condition, SessionStatus};

    fn vif(n: u32, phase: Phase, bridge: Option<&str>, message: &str) -> Arc<VifStatus> {
        let id: VifId = format!("{n:08x}-0000-4000-8000-000000000000").parse().unwrap();
        Arc::new(VifStatus {
            id,
            kind: "openvswitch".into(),
            phase,
            reason: "".into(),
            message: message.into(),
            generation: 0,
            observed_generation: 0,
            instance: Some(format!("guest-{n}")),
            addresses: vec!["10.0.0.5".parse().unwrap(), "fd00::5".parse().unwrap()],
            conditions: Vec::new(),
            facts: Facts {
                bridge: bridge.map(str::to_owned),
                port: bridge.map(|_| format!("tap{n}")),
                mac: Some("52:54:00:12:34:56".parse().unwrap()),
                ..Facts::default()
            }
            .into(),
            since: SystemTime::UNIX_EPOCH,
        })
    }

    fn host(vifs: &[Arc<VifStatus>]) -> HostSummary {
        let mut phases = BTreeMap::new();
        for vif in vifs {
            *phases.entry(vif.phase).or_default() += 1;
        }
        HostSummary {
            agent: "vifd".into(),
            host: "compute-1".into(),
            version: "0.1.0".into(),
            mode: "enforce".into(),
            paused: false,
            paused_vifs: vec![],
            revision: 1,
            ready: true,
            not_ready: vec![],
            phases,
            stopped_removals: vec![],
            rejections: vec![],
            rejected: 0,
            sessions: vec![
                SessionStatus { peer: "ovsdb".into(), up: true, detail: "unix:/run/openvswitch/db.sock".into() },
                SessionStatus { peer: "kernel".into(), up: true, detail: String::new() },
            ],
            holds: BTreeMap::new(),
            foreign_conflicts: 0,
            hindered: BTreeMap::new(),
        }
    }

    const PLAIN: Canvas = Canvas { width: 100, paint: Paint(false), all: false };

    #[test]
    fn a_host_with_everything() {
        let vifs = [
            vif(1, Phase::Ready, Some("br-int"), "usable"),
            vif(2, Phase::Waiting, Some("br-int"), "waiting for the hypervisor to make device tap2"),
            vif(3, Phase::Failed, Some("br-ex"), "could not open network device tap3 (No such device)"),
            vif(4, Phase::Failed, None, "record 4.json is refused: vif.address: is not a MAC address"),
        ];
        let mut host = host(&vifs);
        host.ready = false;
        host.not_ready = vec!["ovs-vswitchd is not running".into()];
        host.rejections = vec![Rejection {
            record: "broken.json".into(),
            vif: None,
            generation: None,
            field: String::new(),
            reason: "is not valid JSON".into(),
        }];
        host.holds.insert("ovsdb".into(), 1);
        host.paused_vifs = vec![vifs[1].id];
        insta::assert_snapshot!(draw(&host, &vifs, PLAIN));
    }

    #[test]
    fn a_refused_update_shows_and_a_first_record_that_is_refused_has_failed() {
        let refused = |phase| {
            let mut vif = VifStatus::clone(&vif(1, phase, Some("br-int"), ""));
            vif.conditions.push(Condition {
                kind: ConditionKind::Accepted,
                status: Truth::False,
                reason: "RecordRejected".into(),
                message: String::new(),
                since: SystemTime::UNIX_EPOCH,
            });
            standing(&vif)
        };
        assert_eq!(standing(&vif(1, Phase::Ready, None, "")), "ready");
        assert_eq!(refused(Phase::Ready), "ready*");
        assert_eq!(refused(Phase::Failed), "failed");
    }

    #[test]
    fn vifs_of_linux_bridges_stand_in_their_box_by_the_guests_device() {
        let on_linux_bridge = |n: u32| {
            let mut vif = VifStatus::clone(&vif(n, Phase::Plugged, None, "waiting for the hypervisor"));
            let (guest_device, linux_bridge) = (Some(format!("tap{n}")), Some("brqblue".into()));
            vif.facts = Facts { guest_device, linux_bridge, uplink: Some("eth1".into()), ..Facts::default() }.into();
            Arc::new(vif)
        };
        let mut hybrid = VifStatus::clone(&vif(3, Phase::Ready, Some("br-int"), "usable"));
        Arc::make_mut(&mut hybrid.facts).linux_bridge = Some("qbr3".into());
        let vifs = [on_linux_bridge(1), on_linux_bridge(2), Arc::new(hybrid)];
        insta::assert_snapshot!(draw(&host(&vifs), &vifs, PLAIN));
    }

    #[test]
    fn a_sub_port_shows_its_vlan() {
        let mut vif = VifStatus::clone(&vif(1, Phase::Ready, Some("br-int"), "usable"));
        let facts = Arc::make_mut(&mut vif.facts);
        (facts.port, facts.vlan) = (Some("tapaa000021-11".into()), Some(4094));
        let vifs = [Arc::new(vif)];
        assert!(draw(&host(&vifs), &vifs, PLAIN).contains(" tapaa000021-11.4094 "));
    }

    #[test]
    fn an_empty_host_says_how_to_begin() {
        assert!(draw(&host(&[]), &[], PLAIN).contains("vifd plug FILE"));
    }

    #[test]
    fn a_full_bridge_is_cut_and_what_needs_somebody_is_shown() {
        let mut vifs: Vec<_> = (0..100).map(|n| vif(n, Phase::Ready, Some("br-int"), "usable")).collect();
        vifs.push(vif(500, Phase::Failed, Some("br-int"), "no"));
        let text = draw(&host(&vifs), &vifs, PLAIN);
        assert!(text.contains("tap500") && text.contains("and 77 more, all ready"), "{text}");
        let all = draw(&host(&vifs), &vifs, Canvas { all: true, ..PLAIN });
        assert!((0..100).all(|n| all.contains(&format!("tap{n} "))));
    }

    #[test]
    fn no_line_is_wider_than_the_terminal_and_boxes_are_even() {
        let long = "a sentence that goes on and on ".repeat(10);
        let vifs = [vif(1, Phase::Failed, Some("br-int"), &long)];
        for width in [40, 60, 80, 100] {
            let text = draw(&host(&vifs), &vifs, Canvas { width, ..PLAIN });
            let widths: Vec<usize> = text
                .lines()
                .filter(|line| line.starts_with(['┌', '│', '└']))
                .map(|line| line.chars().count())
                .collect();
            assert!(widths.iter().all(|each| *each == widths[0] && *each <= width), "{width}: {widths:?}\n{text}");
            // Nothing of the reason is cut off.
            assert_eq!(text.matches("sentence").count(), 10, "{width}:\n{text}");
        }
    }
}
