//! The names of things in the queue: a host as one token of a subject, and the key of a VIF's record.
//!
//! A NATS subject is tokens joined by dots, and permissions are given by token. So a host is *one* token: with two, a
//! host `a` that may ask for `a.*` could ask for `a.>`, which is also `a.b`'s.
//!
//! Letters, digits and `-` stand for themselves, a dot is `_` (which host names have not, RFC 1123 §2.1), and
//! every other octet is `=` and two upper-case hexadecimal digits, `_` and `=` themselves included. No two hosts
//! share a token, and every token is within what NATS' own tools take for a key (`[-/_=.a-zA-Z0-9]`).

use std::fmt;
use std::str::FromStr;

use crate::model::VifId;

/// The longest token, in octets: NATS bounds whole protocol lines at 4096 octets, and a host name ends at 253
/// (RFC 1123), each octet of which takes up to three.
const LONGEST: usize = 3 * 253;

/// A host as one token of a subject.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostToken(String);

/// What is no host, or no key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadKey {
    /// A host without a name.
    #[error("the name of the host is empty")]
    NoHost,
    /// A name that no host can have.
    #[error("the name of the host is longer than 253 octets")]
    LongHost,
    /// A token that [`HostToken::of`] never makes.
    #[error(
        "{0:?} is no host's token (letters, digits and hyphens; a dot is `_`, anything else `=` and two hexadecimal digits)"
    )]
    Token(String),
    /// The last token is no id of a VIF in its one form.
    #[error("{0:?} is not a UUID in lower case with hyphens, which the last part of a key is")]
    Vif(String),
    /// There are not two parts.
    #[error("{0:?} is not HOST.VIF-ID")]
    Shape(String),
}

impl HostToken {
    /// The token of the host of this name. Case is kept: the kernel's names have it.
    ///
    /// # Errors
    /// The name is empty or too long.
    pub fn of(host: &str) -> Result<HostToken, BadKey> {
        if host.is_empty() {
            return Err(BadKey::NoHost);
        }
        if host.len() > LONGEST / 3 {
            return Err(BadKey::LongHost);
        }
        let mut token = String::with_capacity(host.len());
        for octet in host.bytes() {
            match octet {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' => token.push(char::from(octet)),
                b'.' => token.push('_'),
                other => {
                    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
                    token.push('=');
                    token.push(char::from(DIGITS[usize::from(other >> 4)]));
                    token.push(char::from(DIGITS[usize::from(other & 15)]));
                }
            }
        }
        Ok(HostToken(token))
    }

    /// The name of the host.
    #[must_use]
    pub fn host(&self) -> String {
        // Only what [`HostToken::of`] made, or could have, is a token.
        decode(&self.0).unwrap_or_default()
    }

    /// The token itself.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The keys of this host, as a filter: `TOKEN.>`.
    #[must_use]
    pub fn keys(&self) -> String {
        format!("{}.>", self.0)
    }
}

impl fmt::Display for HostToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for HostToken {
    type Err = BadKey;
    fn from_str(text: &str) -> Result<HostToken, BadKey> {
        let bad = || BadKey::Token(text.to_owned());
        let host = decode(text).ok_or_else(bad)?;
        // One host, one token: what decodes to the same name but is written otherwise is none.
        match HostToken::of(&host) {
            Ok(token) if token.0 == text => Ok(token),
            _ => Err(bad()),
        }
    }
}

fn decode(token: &str) -> Option<String> {
    let mut octets = Vec::with_capacity(token.len());
    let mut rest = token.bytes();
    while let Some(octet) = rest.next() {
        octets.push(match octet {
            b'_' => b'.',
            b'=' => {
                let mut digit = || char::from(rest.next()?).to_digit(16);
                u8::try_from(digit()? * 16 + digit()?).ok()?
            }
            other => other,
        });
    }
    String::from_utf8(octets).ok()
}

/// The key of one VIF's record, and of its status: `HOST.VIF-ID`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Whose it is.
    pub host: HostToken,
    /// Which VIF, in lower case with hyphens.
    pub vif: VifId,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.host, self.vif)
    }
}

impl FromStr for Key {
    type Err = BadKey;
    fn from_str(text: &str) -> Result<Key, BadKey> {
        let (host, id) = text.split_once('.').ok_or_else(|| BadKey::Shape(text.to_owned()))?;
        let vif: VifId = id.parse().map_err(|_| BadKey::Vif(id.to_owned()))?;
        // Other spellings of the same id would be other keys.
        if vif.to_string() != id {
            return Err(BadKey::Vif(id.to_owned()));
        }
        Ok(Key { host: host.parse()?, vif })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn host_names_read_as_one_token() {
        for (host, token) in [
            ("compute-1", "compute-1"),
            ("Compute1.dc2.example.org", "Compute1_dc2_example_org"),
            ("under_score", "under=5Fscore"),
            ("a=b", "a=3Db"),
            ("*", "=2A"),
            (">", "=3E"),
            ("a b\t", "a=20b=09"),
            ("ä", "=C3=A4"),
        ] {
            assert_eq!(HostToken::of(host).unwrap().as_str(), token);
            assert_eq!(token.parse::<HostToken>().unwrap().host(), host);
        }
        assert_eq!(HostToken::of(""), Err(BadKey::NoHost));
        assert_eq!(HostToken::of(&"a".repeat(254)), Err(BadKey::LongHost));
    }

    #[test]
    fn what_is_written_otherwise_is_no_token() {
        for text in ["", "a.b", "a=2e", "a=2E", "a=41", "a=", "a=4", "a b", "a*", ">", "=FF", "a/b"] {
            assert_eq!(text.parse::<HostToken>(), Err(BadKey::Token(text.into())), "{text:?}");
        }
    }

    #[test]
    fn a_key_is_a_host_and_a_vif() {
        let id = "5b8c1de0-7b45-4ccb-9e7f-d8c0a1b2c3d4";
        let key: Key = format!("a_b.{id}").parse().unwrap();
        assert_eq!((key.host.host().as_str(), key.vif.to_string().as_str()), ("a.b", id));
        assert_eq!(key.to_string(), format!("a_b.{id}"));
        for bad in [
            "".to_owned(),
            "a".to_owned(),
            format!("a.b.{id}"),
            format!("a.{id}.x"),
            format!("a.{}", id.to_uppercase()),
            format!("a.{}", id.replace('-', "")),
            format!(".{id}"),
            "a.foo".to_owned(),
        ] {
            bad.parse::<Key>().unwrap_err();
        }
    }

    proptest! {
        #[test]
        fn no_two_hosts_share_a_token(one in "\\PC{1,20}", other in "\\PC{1,20}") {
            let (a, b) = (HostToken::of(&one).unwrap(), HostToken::of(&other).unwrap());
            prop_assert_eq!(a == b, one == other);
            prop_assert_eq!(a.host(), one);
            prop_assert!(a.as_str().bytes().all(|octet| octet.is_ascii_alphanumeric() || b"-_=".contains(&octet)));
        }

        #[test]
        fn reading_a_token_never_panics(text in "\\PC{0,40}") {
            if let Ok(token) = text.parse::<HostToken>() {
                prop_assert_eq!(token.as_str(), text);
            }
        }
    }
}
