//! `validate`, `schema`, `doctor`: what needs no running agent.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Arc;

use serde::Serialize;

use super::output::Output;
use super::vifs::read;
use super::{Common, FAILED, Failure};
use crate::doctor::{self, Finding, Level};
use crate::model::VifId;
use crate::record;

/// What is to be said of one file.
#[derive(Debug, Serialize)]
struct Checked {
    file: String,
    valid: bool,
    vif: Option<VifId>,
    /// Path of the field that is wrong.
    field: String,
    /// Why; empty when it is valid.
    reason: String,
    warnings: Vec<record::Warning>,
}

pub(super) fn validate(files: &[PathBuf], output: &Output) -> Result<(), Failure> {
    let mut checked = Vec::new();
    let mut vifs = BTreeMap::new();
    for file in files {
        let name = file.display().to_string();
        let mut one = Checked {
            file: name,
            valid: true,
            vif: None,
            field: String::new(),
            reason: String::new(),
            warnings: vec![],
        };
        match record::decode(&read(file)?) {
            Ok(record) => {
                one.vif = Some(record.vif.id);
                one.warnings = record.warnings;
                match vifs.entry(record.vif.id) {
                    // The earlier one is what the others are compared with.
                    Entry::Occupied(_) => {
                        (one.valid, one.field) = (false, "vif.id".into());
                        one.reason = "is the id of an earlier file".into();
                    }
                    Entry::Vacant(free) => {
                        free.insert(Arc::new(record.vif));
                    }
                }
            }
            Err(refused) => {
                (one.valid, one.vif) = (false, refused.vif);
                (one.field, one.reason) = (refused.field, refused.reason);
            }
        }
        checked.push(one);
    }
    // Records can be good one by one and not go together.
    let clashes = record::clashes(&vifs, &[], false);
    for one in checked.iter_mut().filter(|one| one.valid) {
        if let Some(clash) = one.vif.and_then(|id| clashes.get(&id)) {
            (one.valid, one.field, one.reason) = (false, clash.field.clone(), clash.reason.clone());
        }
    }
    let mut doubts = vec![record::doubts(&vifs)];
    // Who hands in one record has not shown who else there is.
    if files.len() > 1 {
        doubts.push(record::empty_groups(&vifs));
    }
    for one in checked.iter_mut().filter(|one| one.valid) {
        let found = doubts.iter_mut().filter_map(|doubts| doubts.remove(&one.vif?));
        one.warnings.extend(found.flatten());
    }
    output.answer(&checked, || {
        let mut text = String::new();
        for one in &checked {
            let verdict = if one.valid { output.paint.good("ok") } else { output.paint.bad("wrong") };
            let vif = one.vif.map(|id| format!(" (VIF {id})")).unwrap_or_default();
            let field = if one.field.is_empty() { String::new() } else { format!("{}: ", one.field) };
            let why = if one.valid { String::new() } else { format!(": {field}{}", one.reason) };
            let _ = writeln!(text, "{}{vif} {verdict}{why}", one.file);
            for warning in &one.warnings {
                let _ = writeln!(text, "  {}", output.paint.pending(&warning.to_string()));
            }
        }
        text
    })?;
    if checked.iter().all(|one| one.valid) { Ok(()) } else { Err(Failure::Said(FAILED)) }
}

pub(super) fn schema(output: &Output) -> Result<(), Failure> {
    let schema = record::json_schema();
    output.answer(&schema, || format!("{schema:#}\n"))
}

pub(super) async fn doctor(common: &Common, output: &Output) -> Result<(), Failure> {
    let findings = doctor::examine(&common.config, common.socket.as_deref()).await;
    output.answer(&findings, || findings_text(&findings, output))?;
    let sick = findings.iter().any(|finding| finding.verdict == Level::Fail);
    if sick { Err(Failure::Said(FAILED)) } else { Ok(()) }
}

fn findings_text(findings: &[Finding], output: &Output) -> String {
    let mut text = String::new();
    for finding in findings {
        let sign = match finding.verdict {
            Level::Ok => output.paint.good("✓"),
            Level::Warn => output.paint.pending("!"),
            Level::Fail => output.paint.bad("✗"),
        };
        let _ = writeln!(text, "{sign} {:<20} {}", finding.name, finding.message);
        if !finding.remedy.is_empty() {
            let _ = writeln!(text, "  {:<20} {}", "", output.paint.strong(&format!("→ {}", finding.remedy)));
        }
    }
    text
}
