//! What was noted down of functions and NICs, on disk: one file each in a directory of its own in the state directory. When
//! a note is written, and what is done by it, is not decided here.
//!
//! | file | note |
//! |---|---|
//! | `VIF-ID.json` | [`Undo`]: how the function of a VIF was |
//! | `nic:BUS:DEV.json` | [`Transition`]: what has to come back when a NIC has changed its mode |
//!
//! Each is `{"format": 1, …}` and is replaced as a whole, so that a crash leaves the one before or the one after. A file that
//! is not understood is somebody's only record of how a function was: it is left alone, and nothing is written in its place.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::str::FromStr as _;
use std::sync::Arc;

use devlink::Device;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::model::{Transition, Undo, VifId};
use crate::state_dir::StateDir;

/// Its directory in the state directory.
const DIRECTORY: &str = "nics";
/// The format that is written, and the only one that is read.
const FORMAT: u64 = 1;
/// What [`StateDir::replace`] leaves behind when it is interrupted.
const UNFINISHED: &str = ".new";

/// A note as its file has it.
#[derive(Serialize)]
struct Written<'a, T> {
    format: u64,
    #[serde(flatten)]
    note: &'a T,
}

/// What every format has.
#[derive(Deserialize)]
struct AnyFormat {
    format: u64,
}

/// Why a note was not taken.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoteError {
    /// The disk.
    #[error("cannot keep the note: {0}")]
    Disk(#[from] io::Error),
    /// A file is in the way that was not understood.
    #[error("{0} is not understood by this release and is not overwritten: see what it says, and move it away")]
    InTheWay(String),
    /// Not what devlink calls a NIC.
    #[error(transparent)]
    Nic(#[from] devlink::InvalidDevice),
}

/// Everything that was noted down.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Noted {
    /// Of functions, by the VIF that has them.
    pub(super) undo: BTreeMap<VifId, Arc<Undo>>,
    /// Of NICs.
    pub(super) transitions: BTreeMap<Device, Arc<Transition>>,
    /// Notes of a later format.
    pub(super) newer: usize,
}

/// The directory and what is in it. It blocks for the disk.
#[derive(Debug)]
pub(super) struct Notes {
    directory: StateDir,
    noted: Noted,
    /// Files that are left alone.
    not_understood: BTreeSet<String>,
}

/// What a file came to.
enum Read {
    Undo(Box<Undo>),
    Transition(Device, Transition),
    Newer,
}

impl Notes {
    /// Reads what is there. What is not understood is logged by name.
    pub(super) fn open(state: &StateDir) -> io::Result<Self> {
        let directory = state.below(DIRECTORY)?;
        let mut notes = Notes { directory, noted: Noted::default(), not_understood: BTreeSet::new() };
        for name in notes.directory.names()? {
            let name = name.to_string_lossy().into_owned();
            if name.ends_with(UNFINISHED) {
                continue;
            }
            let path = notes.directory.path().join(&name);
            let path = path.display();
            match notes.read(&name) {
                Ok(Some(Read::Undo(undo))) => drop(notes.noted.undo.insert(undo.vif, Arc::from(undo))),
                Ok(Some(Read::Transition(nic, note))) => drop(notes.noted.transitions.insert(nic, Arc::new(note))),
                Ok(Some(Read::Newer)) => {
                    tracing::warn!(%path, "a note on a function or a NIC is of a later release, and is left alone");
                    notes.noted.newer += 1;
                    notes.not_understood.insert(name);
                }
                Ok(None) => {}
                Err(error) => {
                    tracing::error!(%path, %error, "a note on a function or a NIC cannot be read, and is left alone");
                    notes.not_understood.insert(name);
                }
            }
        }
        Ok(notes)
    }

    /// What is noted.
    pub(super) fn noted(&self) -> &Noted {
        &self.noted
    }

    fn read(&self, name: &str) -> io::Result<Option<Read>> {
        let Some(bytes) = self.directory.read(name)? else { return Ok(None) };
        let AnyFormat { format } = serde_json::from_slice(&bytes)?;
        if format > FORMAT {
            return Ok(Some(Read::Newer));
        }
        if format != FORMAT {
            return Err(invalid(format!("there never was a format {format}")));
        }
        let (read, wanted) = if name.starts_with(NIC) {
            let note: Transition = parse(&bytes)?;
            let nic = Device::from_str(&note.nic).map_err(|error| invalid(error.to_string()))?;
            let wanted = nic_file(&nic);
            (Read::Transition(nic, note), wanted)
        } else {
            let undo: Undo = parse(&bytes)?;
            let wanted = vif_file(undo.vif);
            (Read::Undo(Box::new(undo)), wanted)
        };
        // A copy is nobody's note.
        if wanted == name { Ok(Some(read)) } else { Err(invalid(format!("it is a note for {wanted}"))) }
    }

    /// Notes down how a function was, in place of what was noted for the same VIF; on disk when it returns.
    pub(super) fn remember(&mut self, undo: &Undo) -> Result<(), NoteError> {
        self.write(&vif_file(undo.vif), undo)?;
        self.noted.undo.insert(undo.vif, Arc::new(undo.clone()));
        Ok(())
    }

    /// Strikes that out; nothing where there is none.
    pub(super) fn forget(&mut self, vif: VifId) -> Result<(), NoteError> {
        self.strike_out(&vif_file(vif))?;
        self.noted.undo.remove(&vif);
        Ok(())
    }

    /// Notes down what has to come back; on disk when it returns.
    pub(super) fn remember_transition(&mut self, transition: &Transition) -> Result<(), NoteError> {
        let nic = Device::from_str(&transition.nic)?;
        self.write(&nic_file(&nic), transition)?;
        self.noted.transitions.insert(nic, Arc::new(transition.clone()));
        Ok(())
    }

    /// Strikes that out; nothing where there is none.
    pub(super) fn forget_transition(&mut self, nic: &Device) -> Result<(), NoteError> {
        self.strike_out(&nic_file(nic))?;
        self.noted.transitions.remove(nic);
        Ok(())
    }

    fn write(&self, name: &str, note: &impl Serialize) -> Result<(), NoteError> {
        self.is_ours(name)?;
        let bytes = serde_json::to_vec(&Written { format: FORMAT, note }).map_err(io::Error::from)?;
        Ok(self.directory.replace(name, &bytes)?)
    }

    fn strike_out(&self, name: &str) -> Result<(), NoteError> {
        self.is_ours(name)?;
        self.directory.remove(name)?;
        Ok(self.directory.sync()?)
    }

    fn is_ours(&self, name: &str) -> Result<(), NoteError> {
        if self.not_understood.contains(name) {
            return Err(NoteError::InTheWay(self.directory.path().join(name).display().to_string()));
        }
        Ok(())
    }
}

/// What the names of notes on NICs begin with; no id of a VIF does.
const NIC: &str = "nic:";

fn vif_file(vif: VifId) -> String {
    format!("{vif}.json")
}

/// A bus has no `:` in its name, and neither part has a `/`.
fn nic_file(nic: &Device) -> String {
    format!("{NIC}{}:{}.json", nic.bus, nic.dev)
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> io::Result<T> {
    Ok(serde_json::from_slice(bytes)?)
}

fn invalid(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use devlink::vf::{Vlan, VlanProtocol};

    use super::*;
    use crate::model::{AgentId, Association, DriverBefore, StationProfile, VfChange};

    fn undo(vif: &str) -> Undo {
        Undo {
            agent: AgentId("vifd".into()),
            vif: vif.parse().unwrap(),
            function: Some("0000:03:00.2".parse().unwrap()),
            given: None,
            represented: false,
            preserve: true,
            representor: Some("eth3".into()),
            hw_addr: Some("02:00:00:00:00:01".parse().unwrap()),
            active: Some(false),
            settings: VfChange {
                vlan: Some(Vlan { id: 7, qos: 3, protocol: VlanProtocol::Dot1ad }),
                trust: Some(true),
                ..VfChange::default()
            },
            driver: Some(DriverBefore { driver: Some("igbvf".into()), driver_override: None }),
            association: Some(Association {
                index: 7,
                link: "eth1".into(),
                vf: None,
                mac: "02:00:00:00:00:01".parse().unwrap(),
                vlan: Some(100),
                profile: StationProfile::Qbg {
                    manager: 1,
                    type_id: 2,
                    type_version: 3,
                    instance: uuid::Uuid::from_u128(4),
                },
            }),
            netdev: Some(7),
        }
    }

    fn transition() -> Transition {
        let before = DriverBefore { driver: Some("mlx5_core".into()), driver_override: None };
        let unbound = ["0000:03:00.2", "0000:03:00.3"].map(|address| (address.parse().unwrap(), before.clone()));
        Transition { agent: AgentId("vifd".into()), nic: "pci/0000:03:00.0".into(), vfs: 2, unbound: unbound.into() }
    }

    const ONE: &str = "6d9bf3a1-0000-4000-8000-000000000001";
    const OTHER: &str = "6d9bf3a1-0000-4000-8000-000000000002";

    fn open(root: &Path) -> Notes {
        Notes::open(&StateDir::open(root).unwrap()).unwrap()
    }

    #[test]
    fn what_was_noted_is_there_after_a_restart_and_what_was_struck_out_is_not() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().join("state");
        let mut notes = open(&root);
        assert_eq!(*notes.noted(), Noted::default());
        notes.remember(&undo(ONE)).unwrap();
        notes.remember(&undo(OTHER)).unwrap();
        notes.remember_transition(&transition()).unwrap();
        let changed = Undo { representor: None, preserve: false, function: None, ..undo(ONE) };
        notes.remember(&changed).unwrap();
        notes.forget(OTHER.parse().unwrap()).unwrap();
        let again = open(&root);
        assert_eq!(again.noted(), notes.noted());
        assert_eq!(again.noted().undo.values().map(|undo| (**undo).clone()).collect::<Vec<_>>(), [changed]);
        let nic: Device = "pci/0000:03:00.0".parse().unwrap();
        assert_eq!(*again.noted().transitions[&nic], transition());

        notes.forget_transition(&nic).unwrap();
        // Twice is as good.
        notes.forget_transition(&nic).unwrap();
        notes.forget(ONE.parse().unwrap()).unwrap();
        assert_eq!(*open(&root).noted(), Noted::default());
        assert_eq!(fs::read_dir(root.join("nics")).unwrap().count(), 0);
    }

    #[test]
    fn a_note_that_was_not_finished_is_none_and_is_in_nobodys_way() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().join("state");
        let mut notes = open(&root);
        notes.remember(&undo(ONE)).unwrap();
        let half = root.join("nics").join(format!("{OTHER}.json.new"));
        fs::write(&half, "{\"format\":1,\"age").unwrap();
        fs::write(root.join("nics").join(format!("{ONE}.json.new")), "").unwrap();
        let mut notes = open(&root);
        assert_eq!(notes.noted().undo.keys().map(ToString::to_string).collect::<Vec<_>>(), [ONE]);
        notes.remember(&undo(OTHER)).unwrap();
        assert!(!half.exists());
        assert_eq!(open(&root).noted().undo.len(), 2);
    }

    #[test]
    fn what_is_not_understood_is_left_alone_and_never_overwritten() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().join("state");
        open(&root).remember(&undo(ONE)).unwrap();
        let file = |name: &str| root.join("nics").join(name);
        let ours = fs::read_to_string(file(&format!("{ONE}.json"))).unwrap();
        assert!(ours.starts_with("{\"format\":1,"), "{ours}");
        let later = ours.replace("\"format\":1", "\"format\":2");
        let copy = "6d9bf3a1-0000-4000-8000-000000000003";
        let texts = [
            (format!("{ONE}.json"), later.as_str()),
            (format!("{OTHER}.json"), "{\"format\":1,\"agent\":3}"),
            (format!("{copy}.json"), ours.as_str()),
            ("nic:pci:0000:03:00.0.json".to_owned(), "not json"),
        ];
        for (name, text) in &texts {
            fs::write(file(name), text).unwrap();
        }
        let mut notes = open(&root);
        assert_eq!(*notes.noted(), Noted { newer: 1, ..Noted::default() });
        let refusals = [
            notes.remember(&undo(ONE)),
            notes.forget(ONE.parse().unwrap()),
            notes.remember(&undo(OTHER)),
            notes.remember(&undo(copy)),
            notes.remember_transition(&transition()),
            notes.forget_transition(&"pci/0000:03:00.0".parse().unwrap()),
        ];
        for refused in refusals {
            let said = refused.unwrap_err().to_string();
            assert!(said.contains(root.to_str().unwrap()) && said.contains("move it away"), "{said}");
        }
        for (name, text) in &texts {
            assert_eq!(fs::read_to_string(file(name)).unwrap(), *text, "{name}");
        }
        let wrong = Transition { nic: "nowhere".into(), ..transition() };
        assert!(notes.remember_transition(&wrong).unwrap_err().to_string().contains("nowhere"));
    }
}
