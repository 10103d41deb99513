//! Whether a user may do something with a file: owner, mode and access control list, as the kernel weighs them. It is
//! worked out and not tried, because the doctor is mostly run by root on behalf of the agent's user.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rustix::io::Errno;

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    /// List a directory and look at what is in it.
    List,
    /// Write; connect to a socket (unix(7)).
    Write,
    /// Make and remove names in a directory.
    Change,
}

impl Wish {
    fn bits(self) -> u16 {
        match self {
            Wish::List => 5,
            Wish::Write => 2,
            Wish::Change => 3,
        }
    }
}

/// A user with all of its groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Account {
    pub(super) uid: u32,
    pub(super) gids: Vec<u32>,
}

/// The access control list as the kernel hands it out (`linux/posix_acl_xattr.h`, version 2).
const LIST: &str = "system.posix_acl_access";

/// Whether `account` may do `wish` with `path`; links are followed.
///
/// # Errors
/// The file cannot be looked at.
pub(super) fn allowed(path: &Path, account: &Account, wish: Wish) -> io::Result<bool> {
    if account.uid == 0 {
        return Ok(true); // by CAP_DAC_OVERRIDE
    }
    let metadata = fs::metadata(path)?;
    let owner = Owner { uid: metadata.uid(), gid: metadata.gid() };
    let mut list = vec![0; 4096];
    let entries = match rustix::fs::getxattr(path, LIST, &mut list) {
        Ok(length) => entries(&list[..length]),
        Err(Errno::NODATA | Errno::OPNOTSUPP) => of_mode(metadata.mode()),
        Err(errno) => return Err(errno.into()),
    };
    Ok(granted(&entries, owner, account, wish.bits()))
}

#[derive(Clone, Copy, Debug)]
struct Owner {
    uid: u32,
    gid: u32,
}

/// An entry of an access control list (acl(5)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    tag: Tag,
    bits: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tag {
    Owner,
    User(u32),
    OwningGroup,
    Group(u32),
    Mask,
    Other,
}

fn of_mode(mode: u32) -> Vec<Entry> {
    let bits = |shift: u32| (mode >> shift & 7) as u16;
    vec![
        Entry { tag: Tag::Owner, bits: bits(6) },
        Entry { tag: Tag::OwningGroup, bits: bits(3) },
        Entry { tag: Tag::Other, bits: bits(0) },
    ]
}

/// After a word with the version: a tag, permissions and an id each, little-endian. What is not known is left out.
fn entries(list: &[u8]) -> Vec<Entry> {
    let entries = list.get(4..).unwrap_or_default().chunks_exact(8);
    entries
        .filter_map(|entry| {
            let [tag0, tag1, bits0, bits1, id @ ..] = *<&[u8; 8]>::try_from(entry).ok()?;
            let id = u32::from_le_bytes(id);
            let tag = match u16::from_le_bytes([tag0, tag1]) {
                0x01 => Tag::Owner,
                0x02 => Tag::User(id),
                0x04 => Tag::OwningGroup,
                0x08 => Tag::Group(id),
                0x10 => Tag::Mask,
                0x20 => Tag::Other,
                _ => return None,
            };
            Some(Entry { tag, bits: u16::from_le_bytes([bits0, bits1]) })
        })
        .collect()
}

/// The algorithm of acl(5), "access check algorithm".
fn granted(entries: &[Entry], owner: Owner, account: &Account, wish: u16) -> bool {
    let of = |tag: Tag| entries.iter().find(|entry| entry.tag == tag).map(|entry| entry.bits);
    let mask = of(Tag::Mask).unwrap_or(7);
    let grants = |bits: u16| bits & wish == wish;
    if account.uid == owner.uid {
        return of(Tag::Owner).is_some_and(grants);
    }
    if let Some(bits) = of(Tag::User(account.uid)) {
        return grants(bits & mask);
    }
    let mut groups = entries
        .iter()
        .filter(|entry| match entry.tag {
            Tag::OwningGroup => account.gids.contains(&owner.gid),
            Tag::Group(gid) => account.gids.contains(&gid),
            _ => false,
        })
        .peekable();
    if groups.peek().is_some() {
        return groups.any(|entry| grants(entry.bits & mask));
    }
    of(Tag::Other).is_some_and(grants)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: Owner = Owner { uid: 0, gid: 0 };
    const WRITE: u16 = 2;

    fn account(uid: u32, gids: &[u32]) -> Account {
        Account { uid, gids: gids.to_vec() }
    }

    #[test]
    fn owner_group_and_others_are_weighed_one_instead_of_the_other() {
        let entries = of_mode(0o100_620);
        assert!(granted(&entries, Owner { uid: 7, gid: 0 }, &account(7, &[]), WRITE));
        assert!(granted(&entries, Owner { uid: 1, gid: 8 }, &account(7, &[8]), WRITE));
        assert!(!granted(&entries, ROOT, &account(7, &[8]), WRITE));
        // Who is the owner is not looked at as one of the others.
        assert!(!granted(&of_mode(0o077), Owner { uid: 7, gid: 7 }, &account(7, &[7]), WRITE));
        assert!(!granted(&of_mode(0o707), Owner { uid: 1, gid: 8 }, &account(7, &[8]), WRITE));
    }

    #[test]
    fn a_list_as_the_kernel_hands_it_out_is_weighed_with_its_mask() {
        // db.sock as ovsdb-server makes it below a directory with a default entry for group 997.
        let socket = |mask: u8| {
            [
                &[2, 0, 0, 0][..],                     // POSIX_ACL_XATTR_VERSION
                &[1, 0, 7, 0, 0xff, 0xff, 0xff, 0xff], // user::rwx
                &[4, 0, 5, 0, 0xff, 0xff, 0xff, 0xff], // group::r-x
                &[8, 0, 7, 0, 0xe5, 0x03, 0, 0],       // group:997:rwx
                &[0x10, 0, mask, 0, 0xff, 0xff, 0xff, 0xff],
                &[0x20, 0, 0, 0, 0xff, 0xff, 0xff, 0xff], // other::---
            ]
            .concat()
        };
        let vifd = account(997, &[997]);
        assert!(granted(&entries(&socket(7)), ROOT, &vifd, WRITE));
        // Made under a umask of 022, the mask takes the right to write.
        assert!(!granted(&entries(&socket(5)), ROOT, &vifd, WRITE));
        assert!(!granted(&entries(&socket(7)), ROOT, &account(998, &[998]), WRITE));
        assert!(granted(&entries(&socket(5)), ROOT, &account(0, &[]), WRITE), "the owner is not masked");
        assert_eq!(entries(&[2, 0, 0]), []);
        assert_eq!(entries(&socket(7)[..20]).len(), 2, "a cut entry is left out");
    }

    #[test]
    fn files_are_looked_at() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let owner = fs::metadata(file.path()).unwrap().uid();
        assert!(allowed(file.path(), &account(owner, &[]), Wish::Write).unwrap());
        assert!(!allowed(file.path(), &account(owner + 1, &[]), Wish::Write).unwrap(), "tempfile makes it 0600");
        assert!(allowed(Path::new("/nowhere/x"), &account(1, &[]), Wish::Write).is_err());
    }
}
