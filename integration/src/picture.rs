//! A host drawn in box characters: bridges on the left, guests on the right, a line for each VIF.

use std::collections::BTreeMap;

/// One VIF with its guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// The bridge, if the VIF is on one.
    pub bridge: Option<String>,
    /// Name of port or device.
    pub port: String,
    /// OpenFlow port number, once there is one.
    pub ofport: Option<i64>,
    /// Phase of the VIF.
    pub phase: String,
    /// Name of the guest.
    pub guest: String,
    /// A line about the guest, such as its addresses.
    pub detail: String,
}

/// Draws the host. Every line ends with a newline; no colours.
#[must_use]
pub fn draw(attachments: &[Attachment]) -> String {
    let mut bridges: BTreeMap<Option<&str>, Vec<&Attachment>> = BTreeMap::new();
    for attachment in attachments {
        bridges.entry(attachment.bridge.as_deref()).or_default().push(attachment);
    }
    // Those without a bridge come first in order, last in the picture.
    let alone = bridges.remove(&None);
    let left = width(attachments.iter().map(label));
    let right = width(attachments.iter().flat_map(|one| [headline(one, 0), one.detail.clone()]));
    let mut lines = Vec::new();
    for (bridge, ports) in bridges {
        let title = bridge.unwrap_or_default();
        let left = left.max(title.chars().count());
        let empty = format!("│{}│", " ".repeat(left + 5));
        // The first guest's box starts at the height of the bridge's.
        let mut edge = format!("┌─ {}┐", filled(title, left + 3));
        for port in ports {
            let [top, name, detail, bottom] = guest(port, right);
            let label = padded(&label(port), left);
            lines.push(format!("{edge}      {top}"));
            edge.clone_from(&empty);
            lines.push(format!("│ {label}  ●─┼──────┤{name}"));
            lines.push(format!("{empty}      │{detail}"));
            lines.push(format!("{empty}      {bottom}"));
        }
        lines.push(format!("└{}┘", "─".repeat(left + 5)));
    }
    for port in alone.into_iter().flatten() {
        let [top, name, detail, bottom] = guest(port, right);
        let label = padded(&label(port), left);
        let empty = " ".repeat(left + 13);
        lines.push(format!("{empty}{top}"));
        lines.push(format!("  {label}  ●────────┤{name}"));
        lines.push(format!("{empty}│{detail}"));
        lines.push(format!("{empty}{bottom}"));
    }
    lines.iter().map(|line| format!("{line}\n")).collect()
}

fn label(one: &Attachment) -> String {
    match one.ofport {
        Some(number) => format!("{number:>3}  {}", one.port),
        None => format!("  -  {}", one.port),
    }
}

/// Name on the left and phase on the right of at least `width` characters.
fn headline(one: &Attachment, width: usize) -> String {
    let gap = width.saturating_sub(one.guest.chars().count() + one.phase.chars().count());
    format!("{}{}{}", one.guest, " ".repeat(gap.max(3)), one.phase)
}

/// The four lines of a guest's box; the middle two without their left side.
fn guest(one: &Attachment, width: usize) -> [String; 4] {
    let line = "─".repeat(width + 2);
    [
        format!("┌{line}┐"),
        format!(" {} │", headline(one, width)),
        format!(" {} │", padded(&one.detail, width)),
        format!("└{line}┘"),
    ]
}

fn width(texts: impl Iterator<Item = String>) -> usize {
    texts.map(|text| text.chars().count()).max().unwrap_or(0)
}

fn padded(text: &str, width: usize) -> String {
    format!("{text:<width$}")
}

fn filled(text: &str, width: usize) -> String {
    let line = width.saturating_sub(text.chars().count() + 1);
    format!("{text} {}", "─".repeat(line))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attachment(bridge: Option<&str>, port: &str, ofport: Option<i64>, guest: &str) -> Attachment {
        Attachment {
            bridge: bridge.map(str::to_owned),
            port: port.into(),
            ofport,
            phase: "ready".into(),
            guest: guest.into(),
            detail: "10.0.0.1".into(),
        }
    }

    #[test]
    fn a_bridge_and_its_guests() {
        let drawn = draw(&[
            attachment(Some("br-int"), "tap1", Some(1), "alice"),
            attachment(None, "tap3", None, "erin"),
            attachment(Some("br-int"), "tap2", Some(12), "bob"),
        ]);
        let expected = "\
┌─ br-int ─────┐      ┌───────────────┐
│   1  tap1  ●─┼──────┤ alice   ready │
│              │      │ 10.0.0.1      │
│              │      └───────────────┘
│              │      ┌───────────────┐
│  12  tap2  ●─┼──────┤ bob     ready │
│              │      │ 10.0.0.1      │
│              │      └───────────────┘
└──────────────┘
                      ┌───────────────┐
    -  tap3  ●────────┤ erin    ready │
                      │ 10.0.0.1      │
                      └───────────────┘
";
        assert_eq!(drawn, expected, "\n{drawn}");
    }
}
