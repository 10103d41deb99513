//! Who we are to the queue: secrets in files, read anew at every connection, so that renewed ones need no restart.
//! They are never part of a message, of the log or of the configuration.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use async_nats::Auth;
use nkeys::KeyPair;

use super::QueueError;

/// Longer files hold no credentials.
const LONGEST: u64 = 64 << 10;

/// Who we are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Credentials {
    /// Nobody in particular, or whom the TLS certificate says.
    #[default]
    None,
    /// A `.creds` file: a JWT and the seed of its key, as `nsc` writes it.
    File(PathBuf),
    /// A file with the seed of a key (`SU…`) whose public half the server knows.
    NKey(PathBuf),
    /// A user, and a file with the password: its first line.
    User {
        /// The user.
        name: String,
        /// The file.
        password: PathBuf,
    },
}

impl Credentials {
    /// Proves who we are: signs the server's `nonce`, or says the password.
    ///
    /// # Errors
    /// The file cannot be read, is open to others, or holds something else. No message has what is in the file.
    pub fn prove(&self, nonce: &[u8]) -> Result<Auth, QueueError> {
        let mut auth = Auth::new();
        match self {
            Credentials::None => {}
            Credentials::File(path) => {
                let text = secret(path)?;
                let part = |begin, end| between(&text, begin, end).ok_or_else(|| bad(path, &format!("has no {begin}")));
                let pair = pair(path, part("BEGIN USER NKEY SEED", "END USER NKEY SEED")?)?;
                auth.jwt = Some(part("BEGIN NATS USER JWT", "END NATS USER JWT")?.to_owned());
                auth.signature = Some(sign(path, &pair, nonce)?);
            }
            Credentials::NKey(path) => {
                let text = secret(path)?;
                let seed = text.lines().map(str::trim).find(|line| line.starts_with("SU"));
                let pair = pair(path, seed.ok_or_else(|| bad(path, "has no line with a user's seed (SU…)"))?)?;
                auth.nkey = Some(pair.public_key());
                auth.signature = Some(sign(path, &pair, nonce)?);
            }
            Credentials::User { name, password } => {
                let text = secret(password)?;
                let line = text.lines().next().unwrap_or_default();
                if line.is_empty() {
                    return Err(bad(password, "has no password in its first line"));
                }
                auth.username = Some(name.clone());
                auth.password = Some(line.to_owned());
            }
        }
        Ok(auth)
    }

    /// The file with the secret.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        match self {
            Credentials::None => None,
            Credentials::File(path) | Credentials::NKey(path) | Credentials::User { password: path, .. } => Some(path),
        }
    }
}

/// The text of a file that nobody else can read: others not at all, and its group may not write.
///
/// # Errors
/// It cannot be read, is no text, or is open to others.
pub(super) fn secret(path: &Path) -> Result<String, QueueError> {
    let cannot = |error: std::io::Error| bad(path, &format!("cannot be read: {error}"));
    // O_NONBLOCK: opening a FIFO must not wait for its writer.
    let flags = nix::libc::O_NONBLOCK | nix::libc::O_CLOEXEC;
    let file = File::options().read(true).custom_flags(flags).open(path).map_err(cannot)?;
    let metadata = file.metadata().map_err(cannot)?;
    if !metadata.is_file() {
        return Err(bad(path, "is not a regular file"));
    }
    closed_to_others(path, metadata.mode())?;
    if metadata.len() > LONGEST {
        return Err(bad(path, "is too long for credentials"));
    }
    let mut text = String::new();
    file.take(LONGEST).read_to_string(&mut text).map_err(|_| bad(path, "is not text"))?;
    Ok(text)
}

/// Whether a file of this mode keeps its secret.
///
/// # Errors
/// Others may read or write it, or its group write.
pub(super) fn closed_to_others(path: &Path, mode: u32) -> Result<(), QueueError> {
    if mode & 0o027 == 0 {
        return Ok(());
    }
    Err(bad(
        path,
        &format!("holds a secret and is open to others (mode {:04o}): run `chmod 0600` or 0640 on it", mode & 0o7777),
    ))
}

fn bad(path: &Path, reason: &str) -> QueueError {
    QueueError::File { path: path.to_owned(), reason: reason.to_owned() }
}

/// The line after one that has `begin` in it and before one that has `end`.
fn between<'t>(text: &'t str, begin: &str, end: &str) -> Option<&'t str> {
    let after = &text[text.find(begin)?..];
    let within = &after[after.find('\n')?..];
    let line = within[..within.find(end)?].lines().map(str::trim).find(|line| !line.is_empty())?;
    (!line.starts_with('-')).then_some(line)
}

fn pair(path: &Path, seed: &str) -> Result<KeyPair, QueueError> {
    // What is wrong with a seed could have it in the message.
    KeyPair::from_seed(seed).map_err(|_| bad(path, "has a seed that is none"))
}

fn sign(path: &Path, pair: &KeyPair, nonce: &[u8]) -> Result<Vec<u8>, QueueError> {
    pair.sign(nonce).map_err(|_| bad(path, "has a key that cannot sign"))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn file(text: &str, mode: u32) -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret");
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        (directory, path)
    }

    #[test]
    fn a_secret_that_others_can_read_is_refused_and_not_told() {
        for (mode, good) in
            [(0o600, true), (0o640, true), (0o400, true), (0o644, false), (0o660, false), (0o604, false)]
        {
            let (_kept, path) = file("hunter2\n", mode);
            let credentials = Credentials::User { name: "u".into(), password: path };
            match credentials.prove(b"nonce") {
                Ok(auth) => assert!(good && auth.password.as_deref() == Some("hunter2"), "{mode:o}"),
                Err(error) => {
                    let said = format!("{error} {error:?}");
                    assert!(!good && said.contains("open to others") && !said.contains("hunter2"), "{said}");
                }
            }
        }
    }

    #[test]
    fn keys_sign_what_the_server_asked() {
        let user = KeyPair::new_user();
        let seed = user.seed().unwrap();
        let (_kept, path) = file(&format!("# ours\n{seed}\n"), 0o600);
        let auth = Credentials::NKey(path).prove(b"nonce").unwrap();
        assert_eq!(auth.nkey.as_deref(), Some(user.public_key().as_str()));
        user.verify(b"nonce", auth.signature.as_deref().unwrap()).unwrap();

        let creds = format!(
            "-----BEGIN NATS USER JWT-----\neyJ.x.y\n------END NATS USER JWT------\n\n*** IMPORTANT ***\n\
             -----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
        );
        let (_kept, path) = file(&creds, 0o600);
        let auth = Credentials::File(path).prove(b"other").unwrap();
        assert_eq!(auth.jwt.as_deref(), Some("eyJ.x.y"));
        user.verify(b"other", auth.signature.as_deref().unwrap()).unwrap();
    }

    #[test]
    fn files_without_what_is_wanted_are_refused_without_their_content() {
        for text in [
            "",
            "SUAAAA",
            "SU\n",
            "-----BEGIN USER NKEY SEED-----\nSUSECRET\n------END USER NKEY SEED------\n",
            "\u{0}",
        ] {
            let (_kept, path) = file(text, 0o600);
            for credentials in [Credentials::NKey(path.clone()), Credentials::File(path.clone())] {
                let said = credentials.prove(b"n").err().expect("it is refused").to_string();
                assert!(said.contains("secret") && !said.contains("SUSECRET") && !said.contains("SUAAAA"), "{said}");
            }
        }
        let missing = Credentials::NKey("/nonexistent/seed".into()).prove(b"n").err().expect("it is refused");
        assert!(missing.to_string().contains("/nonexistent/seed"), "{missing}");
    }
}
