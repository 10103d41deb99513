//! The directory in which the agent keeps what it has to remember: opening it only where nobody else can have laid
//! anything into it, and reading and replacing its files through the open directory, so that no link is followed.
//! What the files say is their readers' business. Everything here blocks.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

/// Of directories that are made here.
const DIRECTORY_MODE: u32 = 0o750;
/// Of files.
const FILE_MODE: u32 = 0o640;
const OPEN: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Why a directory is not taken: somebody else could decide what is in it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Distrust {
    /// A link leads there.
    #[error("{0} is a symbolic link, which is not followed: name the directory itself")]
    Link(PathBuf),
    /// It is a file, say.
    #[error("{0} is not a directory")]
    NotADirectory(PathBuf),
    /// It is another user's.
    #[error("{path} belongs to user {owner} and not to the agent's, {wanted}: run `chown -R {wanted} {path}`")]
    Owner {
        /// The directory.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Whose it has to be.
        wanted: u32,
    },
    /// Others may write to it.
    #[error("{path} can be written by others than its owner (mode {mode:04o}): run `chmod go-w {path}`")]
    Writable {
        /// The directory.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
}

/// Whether `metadata` of `path`, links not followed, is that of a directory in which nobody but `user` and root can
/// lay anything.
pub(crate) fn judge(path: &Path, metadata: &fs::Metadata, user: u32) -> Result<(), Distrust> {
    let mode = metadata.mode() & 0o7777;
    if metadata.is_symlink() {
        Err(Distrust::Link(path.to_owned()))
    } else if !metadata.is_dir() {
        Err(Distrust::NotADirectory(path.to_owned()))
    } else if metadata.uid() != user {
        Err(Distrust::Owner { path: path.to_owned(), owner: metadata.uid(), wanted: user })
    } else if mode & 0o022 != 0 {
        Err(Distrust::Writable { path: path.to_owned(), mode })
    } else {
        Ok(())
    }
}

/// The state directory or one below it, open.
#[derive(Debug)]
pub(crate) struct StateDir {
    directory: File,
    path: PathBuf,
}

impl StateDir {
    /// Opens `path`, made where it is missing.
    ///
    /// # Errors
    /// It cannot be made or opened, or it is no directory of ours: the sentence names it and what to do.
    pub(crate) fn open(path: &Path) -> io::Result<StateDir> {
        DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(path).map_err(|error| {
            // A dangling link, or a file in its place, is told below in better words.
            if error.kind() == io::ErrorKind::AlreadyExists {
                return io::Error::other(in_the_way(path));
            }
            io::Error::new(error.kind(), format!("cannot make {}: {error}", path.display()))
        })?;
        StateDir::trusted(rustix::fs::open(path, OPEN, Mode::empty()), path.to_owned())
    }

    /// Opens the directory `name` in this one, made where it is missing.
    ///
    /// # Errors
    /// As [`StateDir::open`].
    pub(crate) fn below(&self, name: &str) -> io::Result<StateDir> {
        match rustix::fs::mkdirat(&self.directory, name, Mode::from_raw_mode(DIRECTORY_MODE)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(self.refused("make", name, errno)),
        }
        StateDir::trusted(rustix::fs::openat(&self.directory, name, OPEN, Mode::empty()), self.path.join(name))
    }

    /// What was opened at `path`, if it is a directory of ours.
    fn trusted(opened: Result<OwnedFd, Errno>, path: PathBuf) -> io::Result<StateDir> {
        let directory = match opened {
            Ok(directory) => File::from(directory),
            Err(Errno::LOOP | Errno::NOTDIR) => return Err(io::Error::other(in_the_way(&path))),
            Err(errno) => {
                let error = io::Error::from(errno);
                return Err(io::Error::new(error.kind(), format!("cannot open {}: {error}", path.display())));
            }
        };
        judge(&path, &directory.metadata()?, rustix::process::geteuid().as_raw()).map_err(io::Error::other)?;
        Ok(StateDir { directory, path })
    }

    /// Names of everything in it.
    ///
    /// # Errors
    /// It cannot be read.
    pub(crate) fn names(&self) -> io::Result<Vec<OsString>> {
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::read_from(&self.directory)? {
            let name = entry?.file_name().to_bytes().to_vec();
            if name != b"." && name != b".." {
                names.push(OsString::from_vec(name));
            }
        }
        Ok(names)
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// What is in a file; `None` when there is none.
    ///
    /// # Errors
    /// It cannot be read, or is no regular file.
    pub(crate) fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        // O_NONBLOCK: opening a FIFO must not wait for its writer.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let mut file = match rustix::fs::openat(&self.directory, name, flags, Mode::empty()) {
            Ok(file) => File::from(file),
            Err(Errno::NOENT) => return Ok(None),
            Err(errno) => return Err(self.refused("read", name, errno)),
        };
        self.regular(&file, name)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(Some(bytes))
    }

    /// Puts `bytes` in the place of a file: all of them or none, durable when it returns.
    ///
    /// # Errors
    /// It cannot be written.
    pub(crate) fn replace(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let new = format!("{name}.new");
        self.remove(&new)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.directory, &new, flags, Mode::from_raw_mode(FILE_MODE));
        let mut file = File::from(file.map_err(|errno| self.refused("write", &new, errno))?);
        file.write_all(bytes)?;
        file.sync_all()?;
        rustix::fs::renameat(&self.directory, &new, &self.directory, name)
            .map_err(|errno| self.refused("replace", name, errno))?;
        self.sync()
    }

    /// Makes an empty file where there is none; durable after [`StateDir::sync`].
    ///
    /// # Errors
    /// It cannot be made.
    pub(crate) fn touch(&self, name: &str) -> io::Result<()> {
        self.open_file(name).map(drop)
    }

    /// Removes a file; that there is none is as good.
    ///
    /// # Errors
    /// It cannot be removed.
    pub(crate) fn remove(&self, name: &str) -> io::Result<()> {
        match rustix::fs::unlinkat(&self.directory, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(self.refused("remove", name, errno)),
        }
    }

    /// A file, open for writing and made where it is missing; for locks.
    ///
    /// # Errors
    /// It cannot be opened, or is no regular file.
    pub(crate) fn open_file(&self, name: &str) -> io::Result<File> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.directory, name, flags, Mode::from_raw_mode(FILE_MODE));
        let file = File::from(file.map_err(|errno| self.refused("open", name, errno))?);
        self.regular(&file, name)?;
        Ok(file)
    }

    /// Makes names durable that were made or removed.
    ///
    /// # Errors
    /// The disk fails.
    pub(crate) fn sync(&self) -> io::Result<()> {
        self.directory.sync_all()
    }

    fn regular(&self, file: &File, name: &str) -> io::Result<()> {
        if file.metadata()?.is_file() {
            return Ok(());
        }
        Err(io::Error::other(format!("{} is not a regular file", self.path.join(name).display())))
    }

    fn refused(&self, what: &str, name: &str, errno: Errno) -> io::Error {
        let path = self.path.join(name);
        let path = path.display();
        match errno {
            Errno::LOOP => io::Error::other(format!("{path} is a symbolic link, which is not followed: remove it")),
            errno => {
                let error = io::Error::from(errno);
                io::Error::new(error.kind(), format!("cannot {what} {path}: {error}"))
            }
        }
    }
}

fn in_the_way(path: &Path) -> Distrust {
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_symlink() => Distrust::Link(path.to_owned()),
        _ => Distrust::NotADirectory(path.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, chown, symlink};

    use super::*;

    fn refusal(path: &Path) -> String {
        StateDir::open(path).expect_err("it is no directory to trust").to_string()
    }

    #[test]
    fn a_directory_that_others_can_reach_into_is_refused_by_name() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("a/state");
        StateDir::open(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o750);

        for mode in [0o770, 0o777, 0o1777, 0o702] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let said = refusal(&path);
            assert!(said.contains(path.to_str().unwrap()) && said.contains("chmod go-w"), "{said}");
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
        StateDir::open(&path).unwrap();

        let link = root.path().join("link");
        symlink(&path, &link).unwrap();
        assert!(refusal(&link).contains("is a symbolic link"), "{}", refusal(&link));
        let dangling = root.path().join("dangling");
        symlink(root.path().join("nowhere"), &dangling).unwrap();
        assert!(refusal(&dangling).contains("is a symbolic link"), "{}", refusal(&dangling));
        assert!(!root.path().join("nowhere").exists(), "nothing is made through a link");
        let file = root.path().join("file");
        fs::write(&file, "").unwrap();
        assert!(refusal(&file).contains("is not a directory"), "{}", refusal(&file));

        // As root alone one can give a directory away.
        if rustix::process::geteuid().is_root() {
            chown(&path, Some(65534), None).unwrap();
            assert!(refusal(&path).contains("belongs to user 65534"), "{}", refusal(&path));
        } else {
            eprintln!("skipped: not root, so no directory can be given to another user");
        }
    }

    #[test]
    fn what_was_laid_into_it_is_neither_read_through_nor_written_through() {
        let root = tempfile::tempdir().unwrap();
        let victim = root.path().join("victim");
        fs::write(&victim, "precious").unwrap();
        let path = root.path().join("state");
        let state = StateDir::open(&path).unwrap();
        for name in ["a", "a.new", "lock"] {
            symlink(&victim, path.join(name)).unwrap();
        }
        for said in [state.read("a").unwrap_err(), state.open_file("lock").unwrap_err(), state.touch("a").unwrap_err()]
        {
            assert!(said.to_string().contains("is a symbolic link"), "{said}");
        }
        state.replace("a", b"new").unwrap();
        assert_eq!(state.read("a").unwrap().unwrap(), b"new");
        // Two names of one file: the other one keeps what it had.
        fs::hard_link(&victim, path.join("b.new")).unwrap();
        state.replace("b", b"new").unwrap();
        assert_eq!(fs::read(&victim).unwrap(), b"precious");
        assert_eq!(fs::metadata(path.join("b")).unwrap().mode() & 0o7777 & !0o640, 0);
        // Opened by its name once, and not by its path again: what is laid in its place meanwhile is not used.
        let moved = root.path().join("moved");
        fs::rename(&path, &moved).unwrap();
        let elsewhere = root.path().join("elsewhere");
        fs::create_dir(&elsewhere).unwrap();
        symlink(&elsewhere, &path).unwrap();
        state.below("inner").unwrap().touch("c").unwrap();
        assert_eq!(state.below("inner").unwrap().names().unwrap(), ["c"]);
        assert!(moved.join("inner/c").exists() && fs::read_dir(&elsewhere).unwrap().next().is_none());
        fs::remove_file(&path).unwrap();
        fs::rename(&moved, &path).unwrap();
        symlink(root.path(), path.join("deleted")).unwrap();
        assert!(state.below("deleted").unwrap_err().to_string().contains("is a symbolic link"));
        let fifo = path.join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(state.read("fifo").unwrap_err().to_string().contains("is not a regular file"));
    }
}
