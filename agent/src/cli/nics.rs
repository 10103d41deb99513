//! `nics`: the NICs that can give functions to guests, and who has these.

use std::fmt::Write as _;

use serde_json::Value;

use super::Failure;
use super::output::{Cell, Output};
use super::vifs::typed;
use crate::api::client::Client;
use crate::inspect::{FunctionLine, NetdevLine, NicLine};

pub(super) async fn nics(client: &Client, output: &Output) -> Result<(), Failure> {
    let answer: Value = client.get("/v1/nics").await?;
    let nics: Vec<NicLine> = typed(&answer)?;
    output.answer(&answer, || text(&nics, output))
}

fn text(nics: &[NicLine], output: &Output) -> String {
    if nics.is_empty() {
        return "No NIC of this host can give functions to guests, and no [[nic]] is configured.\n".into();
    }
    let or_none = |text: &Option<String>| Cell::from(text.clone().unwrap_or_else(|| "-".into()));
    let rows = nics.iter().map(|nic| {
        let mode = match (&nic.mode, nic.there) {
            (_, false) => "not here".to_owned(),
            (Some(mode), true) => mode.clone(),
            (None, true) => "-".to_owned(),
        };
        let vfs = nic.vfs.zip(nic.most_vfs).map(|(made, most)| format!("{made}/{most}"));
        let vifs: usize = nic.functions.iter().map(|function| function.vifs.len()).sum();
        let uplinks: Vec<String> = nic.uplinks.iter().map(netdev).collect();
        vec![
            nic.nic.clone().into(),
            or_none(&nic.driver),
            mode.into(),
            or_none(&vfs),
            vifs.to_string().into(),
            or_none(&Some(uplinks.join(", ")).filter(|uplinks| !uplinks.is_empty())),
        ]
    });
    let mut text = output.table(&["NIC", "DRIVER", "MODE", "VFS", "VIFS", "UPLINKS"], rows);
    let taken: Vec<Vec<Cell>> = nics.iter().flat_map(|nic| nic.functions.iter().flat_map(|of| row(nic, of))).collect();
    if !taken.is_empty() {
        text.push('\n');
        text.push_str(&output.table(&["NIC", "FUNCTION", "ADDRESS", "DRIVER", "REPRESENTOR", "VIF"], taken));
    }
    for NicLine { nic, hindered, .. } in nics.iter().filter(|nic| !nic.hindered.is_empty()) {
        let _ = writeln!(text, "\n{} {nic} is not as configured: {hindered}", output.paint.bad("✗"));
    }
    text
}

/// A row for each VIF that has, or wants, the function.
fn row<'a>(nic: &'a NicLine, of: &'a FunctionLine) -> impl Iterator<Item = Vec<Cell>> + 'a {
    let or_none = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".into());
    of.vifs.iter().map(move |vif| {
        let representor = match (&of.representor, &of.candidates[..]) {
            (Some(representor), _) => netdev(representor),
            (None, []) => "-".to_owned(),
            (None, several) => format!("one of {}", several.join(", ")),
        };
        vec![
            nic.nic.clone().into(),
            of.function.clone().into(),
            or_none(&of.address).into(),
            or_none(&of.driver).into(),
            representor.into(),
            vif.to_string().into(),
        ]
    })
}

/// Its name, and whether it could hand flows to the NIC and does not.
fn netdev(of: &NetdevLine) -> String {
    let NetdevLine { name, tc_offload } = of;
    if *tc_offload == Some(false) { format!("{name} (hw-tc-offload off)") } else { name.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nics_for_people() {
        let netdev = |name: &str, tc_offload| NetdevLine { name: name.into(), tc_offload };
        let function = |vf: u8, vifs: &[&str]| FunctionLine {
            function: format!("pf0vf{vf}"),
            address: Some(format!("0000:03:00.{}", vf + 2)),
            driver: Some("vfio-pci".into()),
            representor: Some(netdev(&format!("rep{vf}"), Some(true))),
            vifs: vifs.iter().map(|id| id.parse().unwrap()).collect(),
            ..FunctionLine::default()
        };
        let good = NicLine {
            nic: "pci/0000:03:00.0".into(),
            there: true,
            driver: Some("mlx5_core".into()),
            mode: Some("switchdev".into()),
            vfs: Some(2),
            most_vfs: Some(8),
            uplinks: vec![netdev("p0", Some(false))],
            functions: vec![function(0, &["dc065497-3c8d-4f44-8fb4-e1d33c16a536"]), function(1, &[])],
            configured: true,
            ..NicLine::default()
        };
        let absent = NicLine {
            nic: "pci/0000:09:00.0".into(),
            hindered: "this host has no NIC pci/0000:09:00.0".into(),
            ..NicLine::default()
        };
        insta::assert_snapshot!(text(&[good, absent], &Output::plain()));
        assert!(text(&[], &Output::plain()).contains("No NIC"));
    }
}
