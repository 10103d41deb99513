//! Where applications in containers learn which function they have: a file for each VIF, named by its id, that holds the PCI
//! address. They are read at every look; the kernel is not asked to tell of changes by other hands.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use devlink::PciAddress;

use crate::model::VifId;

/// The longest that is read of a file: an address is shorter.
const LONGEST: u64 = 64;
/// Of the directory: others read in it.
const MODE: u32 = 0o755;

/// The directory. It is made with the first hint.
#[derive(Clone, Debug)]
pub(super) struct Hints(pub(super) PathBuf);

impl Hints {
    /// Every hint that is there. Of a file that does not hold an address nothing is told, so that it is written again.
    pub(super) fn all(&self) -> io::Result<BTreeMap<VifId, PciAddress>> {
        let entries = match fs::read_dir(&self.0) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(BTreeMap::new()),
            Err(error) => return Err(error),
        };
        let mut hints = BTreeMap::new();
        for entry in entries {
            let entry = entry?;
            let vif = entry.file_name().to_str().and_then(|name| name.parse().ok());
            let Some(vif) = vif.filter(|_| entry.file_type().is_ok_and(|kind| kind.is_file())) else { continue };
            hints.extend(read(&entry.path()).map(|address| (vif, address)));
        }
        Ok(hints)
    }

    /// Says which function a VIF has: in one piece, or not at all.
    pub(super) fn write(&self, vif: VifId, address: PciAddress) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(MODE).create(&self.0)?;
        // Whatever the umask: others read it.
        fs::set_permissions(&self.0, Permissions::from_mode(MODE))?;
        let new = self.0.join(format!(".{vif}.new"));
        let mut file = File::create(&new)?;
        file.set_permissions(Permissions::from_mode(0o644))?;
        writeln!(file, "{address}")?;
        fs::rename(&new, self.0.join(vif.to_string()))
    }

    /// Says so no more.
    pub(super) fn remove(&self, vif: VifId) -> io::Result<()> {
        match fs::remove_file(self.0.join(vif.to_string())) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

fn read(path: &Path) -> Option<PciAddress> {
    let mut text = String::new();
    File::open(path).ok()?.take(LONGEST).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_hint_is_there_until_it_is_taken_away() {
        let scratch = tempfile::tempdir().unwrap();
        let hints = Hints(scratch.path().join("made/when/needed"));
        let (one, other) = (VifId(Uuid::from_u128(1)), VifId(Uuid::from_u128(2)));
        let address: PciAddress = "0000:00:05.0".parse().unwrap();
        assert_eq!(hints.all().unwrap(), BTreeMap::new());
        hints.remove(one).unwrap();
        hints.write(one, "0000:00:06.0".parse().unwrap()).unwrap();
        hints.write(one, address).unwrap();
        assert_eq!(fs::read_to_string(hints.0.join(one.to_string())).unwrap(), "0000:00:05.0\n");
        // What is no hint is none.
        fs::write(hints.0.join(other.to_string()), "nothing").unwrap();
        fs::write(hints.0.join("a name"), "0000:00:05.0").unwrap();
        assert_eq!(hints.all().unwrap(), BTreeMap::from([(one, address)]));
        hints.remove(one).unwrap();
        assert_eq!(hints.all().unwrap(), BTreeMap::new());
    }
}
