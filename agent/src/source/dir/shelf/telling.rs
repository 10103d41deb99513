//! What the shelf tells: the intake, which records were refused, and why the set is not synced. Nothing is
//! decided here.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Footing, Holders, Shelf};
use crate::model::{Desired, Vif, VifId};
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
        let mut vifs: BTreeMap<VifId, Arc<Vif>> = self.leaving.clone();
        vifs.extend(self.doubted.iter().map(|(id, doubt)| (*id, doubt.vif.clone())));
        vifs.extend(self.good());
        let unreadable = self
            .files
            .values()
            .filter_map(|entry| entry.bad.as_ref()?.vif)
            .filter(|id| !vifs.contains_key(id) && !self.tombstones.contains_key(id))
            .collect();
        let problem = self.problem();
        Intake {
            desired: Arc::new(Desired {
                synced: problem.is_none(),
                vifs: vifs.into(),
                deleted: self.tombstones.keys().copied().collect(),
                unreadable,
            }),
            rejections: Arc::new(self.rejections()),
            problem,
            revision: self.revision,
        }
    }

    fn rejections(&self) -> Vec<Rejection> {
        let mut rejections = Vec::new();
        for (name, entry) in &self.files {
            let record = name.display().to_string();
            if let Some(Refused { vif, generation, field, reason }) = entry.bad.as_deref().cloned() {
                let vif = vif.or(entry.good.as_ref().map(|vif| vif.id));
                rejections.push(Rejection { record, vif, generation, field, reason });
                continue;
            }
            let Some(vif) = &entry.good else { continue };
            let first = self.holders.get(&vif.id).and_then(Holders::first);
            if let Some(first) = first.filter(|first| *first != name) {
                rejections.push(Rejection {
                    record,
                    vif: Some(vif.id),
                    generation: Some(vif.generation),
                    field: "vif.id".into(),
                    reason: format!(
                        "{} holds the same VIF, and of two files the first by name counts",
                        first.display()
                    ),
                });
            }
        }
        rejections
    }
}
