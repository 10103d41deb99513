//! What the shelf tells: the intake, which records were refused, and why the set is not synced. Nothing is
//! decided here.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::sync::Arc;

use super::{Footing, Holders, Shelf};
use crate::model::Desired;
use crate::record::Refused;
use crate::source::{Intake, Rejection};

impl Shelf {
    fn problem(&self) -> Option<String> {
        const UNTIL: &str = "they stay as they are until their records are back or `vifd confirm-removals` says that \
                             they are to go";
        let missing = self.leaving.len();
        match &self.footing {
            Footing::Gone { why, .. } => return Some(format!("{why}; the last known records stay in force")),
            Footing::Emptied if self.files.is_empty() => {
                return Some(format!("the directory is empty, but {missing} VIFs were known: {UNTIL}"));
            }
            Footing::Emptied => {
                return Some(format!(
                    "the directory was found empty, and {missing} VIFs that were known are still missing: {UNTIL}"
                ));
            }
            Footing::Returned { settle_at: Some(_) } => {
                return Some(format!(
                    "the directory has only just come and may still be being filled; {missing} VIFs that were known \
                     are without a file"
                ));
            }
            Footing::Returned { settle_at: None } | Footing::Firm | Footing::Burst { .. } => {}
        }
        self.nameless().map(|name| {
            format!(
                "{} cannot be read and may be the record of any VIF, so no VIF is taken for absent until it is mended or removed",
                name.display()
            )
        })
    }

    /// The intake as of now.
    pub(in super::super) fn intake(&self) -> Intake {
        let unreadable = self
            .bad
            .iter()
            .filter_map(|name| self.files.get(name)?.bad.as_ref()?.vif)
            .filter(|id| !self.wanted.contains_key(id) && !self.tombstones.contains_key(id))
            .collect();
        let problem = self.problem();
        Intake {
            desired: Arc::new(Desired {
                synced: problem.is_none(),
                vifs: self.wanted.clone(),
                deleted: self.tombstones.keys().copied().collect(),
                unreadable,
            }),
            rejections: Arc::new(self.rejections()),
            problem,
            revision: self.revision,
        }
    }

    /// In order of the names of the files.
    fn rejections(&self) -> Vec<Rejection> {
        let second = self.shared.iter().filter_map(|id| self.holders.get(id)).flat_map(|names| names.0.iter().skip(1));
        let names: BTreeSet<&OsString> = self.bad.iter().chain(second).collect();
        names.into_iter().filter_map(|name| self.rejection(name)).collect()
    }

    fn rejection(&self, name: &OsString) -> Option<Rejection> {
        let record = name.display().to_string();
        let entry = self.files.get(name)?;
        if let Some(Refused { vif, generation, field, reason }) = entry.bad.as_deref().cloned() {
            let vif = vif.or(entry.good.as_ref().map(|vif| vif.id));
            return Some(Rejection { record, vif, generation, field, reason });
        }
        let vif = entry.good.as_ref()?;
        let first = self.holders.get(&vif.id).and_then(Holders::first).filter(|first| *first != name)?;
        Some(Rejection {
            record,
            vif: Some(vif.id),
            generation: Some(vif.generation),
            field: "vif.id".into(),
            reason: format!("{} holds the same VIF, and of two files the first by name counts", first.display()),
        })
    }
}
