//! The marks that say whose an object is: `ifalias` of links and `external_ids` of rows. Whoever wrote them, ours are
//! ours and nothing else is.

use std::collections::BTreeMap;

use vifd::config::Config;
use vifd::model::Mark;
use vifd::plan::{FORMAT, OWNER, Owner, PRESERVE, Settings, VIF};

use super::line;

pub(crate) fn check(data: &[u8]) -> bool {
    let Ok(settings) = Config::default().settings() else { return false };
    let (alias, ids) = line(data);
    link(&String::from_utf8_lossy(alias), &settings) | row(&String::from_utf8_lossy(ids), &settings)
}

fn link(alias: &str, settings: &Settings) -> bool {
    let owner = settings.link_owner(Some(alias));
    match Mark::parse(alias) {
        None => assert_eq!(owner, Owner::Nobody),
        Some(Mark::Newer(text)) => assert_eq!(text, alias),
        Some(Mark::Made { agent, vif, preserve }) => {
            let text = Mark::text(&agent, vif, preserve);
            assert_eq!(Mark::parse(&text), Some(Mark::Made { agent: agent.clone(), vif, preserve }));
            assert_eq!(matches!(owner, Owner::Us { .. }), agent == settings.agent);
        }
        Some(Mark::Shared { agent, unwanted, uplink }) => {
            let text = Mark::shared_text(&agent, unwanted, uplink.as_deref());
            assert_eq!(Mark::parse(&text), Some(Mark::Shared { agent: agent.clone(), unwanted, uplink }));
            assert_eq!(matches!(owner, Owner::Us { vif: None, .. }), agent == settings.agent);
        }
    }
    owner != Owner::Nobody
}

/// Lines of `key=value`.
fn row(text: &str, settings: &Settings) -> bool {
    let pair = |line: &str| line.split_once('=').map(|(key, value)| (key.to_owned(), value.to_owned()));
    let ids: BTreeMap<String, String> = text.lines().filter_map(pair).collect();
    let owner = settings.owner(&ids.clone().into());
    match &owner {
        Owner::Us { vif, preserve } => {
            assert_eq!(ids.get(OWNER), Some(&settings.agent.0));
            assert!(ids.get(FORMAT).is_none_or(|format| format == "1"));
            assert_eq!(*vif, ids.get(VIF).and_then(|id| id.parse().ok()));
            assert_eq!(*preserve, ids.get(PRESERVE).is_some_and(|value| value == "true"));
            assert_eq!(settings.owner(&settings.marks(*vif, *preserve).into()), owner);
        }
        Owner::Other(_) => assert_ne!(ids.get(OWNER), Some(&settings.agent.0)),
        Owner::Later(_) => assert!(ids.contains_key(FORMAT)),
        Owner::Nobody => assert!(!ids.contains_key(OWNER)),
    }
    owner != Owner::Nobody
}
