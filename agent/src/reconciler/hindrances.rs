//! NICs that are not as they are configured to be: what was said of them, so that each change is said once.

use std::collections::BTreeMap;

use crate::backend::Party;
use crate::plan::Plan;

/// What was said.
#[derive(Debug, Default)]
pub(super) struct Hindrances {
    told: BTreeMap<String, String>,
}

impl Hindrances {
    /// Says what is new by this plan, which was made with NICs in view.
    pub(super) fn tell(&mut self, plan: &Plan) {
        for (nic, reason) in self.news(plan) {
            match reason {
                Some(reason) => tracing::warn!(nic, "the NIC is not as it is configured: {reason}"),
                None => tracing::info!(nic, "nothing is in the way of what is configured for the NIC any more"),
            }
        }
    }

    /// NICs of which there is something new to say, with what is in the way.
    fn news(&mut self, plan: &Plan) -> Vec<(String, Option<String>)> {
        let mut news = Vec::new();
        for (nic, reason) in &plan.hindered {
            if self.told.insert(nic.clone(), reason.clone()).as_ref() != Some(reason) {
                news.push((nic.clone(), Some(reason.clone())));
            }
        }
        // What was refused and is tried again is no other trouble, and not over.
        let at_it = |nic: &str| plan.nics.iter().any(|op| matches!(&op.party, Party::Nic(of) if of == nic));
        let over = |nic: &String| !plan.hindered.contains_key(nic) && !at_it(nic);
        let gone: Vec<String> = self.told.keys().filter(|nic| over(nic)).cloned().collect();
        for nic in gone {
            self.told.remove(&nic);
            news.push((nic, None));
        }
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::Attributed;
    use crate::backend::nics::NicOp;

    #[test]
    fn each_change_is_said_once_and_another_attempt_is_none() {
        const NIC: &str = "pci/0000:03:00.0";
        let hindered = |reason: &str| Plan { hindered: [(NIC.into(), reason.into())].into(), ..Plan::default() };
        let mut hindrances = Hindrances::default();
        let mut said = |plan: &Plan| hindrances.news(plan);
        let news = |reason: Option<&str>| vec![(NIC.to_owned(), reason.map(str::to_owned))];
        assert_eq!(said(&Plan::default()), []);
        assert_eq!(said(&hindered("it was refused: busy")), news(Some("it was refused: busy")));
        assert_eq!(said(&hindered("it was refused: busy")), []);
        let op = NicOp::SetVfCount { nic: NIC.parse().unwrap(), count: 2 };
        let again = Attributed { party: Party::Nic(NIC.into()), op };
        assert_eq!(said(&Plan { nics: vec![again], ..Plan::default() }), [], "it is tried again");
        assert_eq!(said(&hindered("it was refused: busy")), []);
        assert_eq!(said(&hindered("gone")), news(Some("gone")));
        assert_eq!(said(&Plan::default()), news(None));
        assert_eq!(said(&Plan::default()), []);
    }
}
