//! What can go wrong: with a request, as a sentence that says which; and with a socket.

use std::fmt;
use std::io;

use nix::errno::Errno;

use crate::wire::Malformed;

/// `ENOTSUPP` of the kernel's own, which some drivers let out: no system call has it.
const ENOTSUPP: i32 = 524;

/// Why something could not be asked, or was not done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no socket to be had, or the kernel took nothing from it.
    #[error("cannot {request}: generic netlink: {source}")]
    Socket {
        /// What was to be done, as a sentence goes on after "cannot".
        request: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The kernel has no such family: it was built without it.
    #[error("this kernel has no generic netlink family {family:?}")]
    NoFamily {
        /// `devlink` or `ethtool`.
        family: &'static str,
    },
    /// The kernel refused it.
    #[error("cannot {request}: {refusal}")]
    Refused {
        /// What was to be done, as a sentence goes on after "cannot".
        request: String,
        /// What it said.
        refusal: Extack,
    },
    /// The kernel's answer was lost (`ENOBUFS`), or none came: whether it was done is not known.
    #[error("whether it was done is not known, the kernel's answer was lost: {request}")]
    Lost {
        /// What was to be done.
        request: String,
    },
    /// What was listed changed again and again while it was listed (`NLM_F_DUMP_INTR`).
    #[error("cannot {request}: it changes faster than it is read")]
    Interrupted {
        /// What was to be done, as a sentence goes on after "cannot".
        request: String,
    },
    /// The kernel's answer cannot be read. Changes may have been done.
    #[error("the kernel's answer is malformed: {source} (on: {request})")]
    Malformed {
        /// What was to be done.
        request: String,
        /// What is wrong with it.
        #[source]
        source: Malformed,
    },
    /// The kernel accepted the change of a feature and did not do it.
    #[error("{link} leaves {feature} {}: {}", if *on { "off" } else { "on" },
        if *fixed { "it is fixed there" } else { "its driver does not allow it as the other features are" })]
    FeatureNotSet {
        /// The link.
        link: String,
        /// The feature, by its name of ethtool(8)'s.
        feature: String,
        /// What was asked for.
        on: bool,
        /// No request can change it on this link.
        fixed: bool,
    },
}

/// What the kernel says when it refuses a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extack {
    /// Number of the error (`errno.h`), positive.
    pub errno: i32,
    /// Text of the driver's or the kernel's own (extack, `NLMSGERR_ATTR_MSG`).
    pub text: Option<String>,
    /// The attribute of the request that is meant (`NLMSGERR_ATTR_OFFS`).
    pub attribute: Option<RefusedAttribute>,
    /// The type of the attribute that the request lacks (`NLMSGERR_ATTR_MISS_TYPE`).
    pub missing: Option<u32>,
}

/// An attribute of a request that the kernel points at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RefusedAttribute {
    /// Where it is, in octets from the beginning of the message.
    pub offset: u32,
    /// Its type, if one begins there (`enum devlink_attr`; in a nest, that nest's).
    pub kind: Option<u16>,
}

impl fmt::Display for Extack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(text) = &self.text {
            // A driver's text: whatever it holds, it is one line.
            let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
            write!(f, "{} (", text.trim_end_matches(['.', ' ']))?;
        }
        match (self.errno, Errno::from_raw(self.errno)) {
            (ENOTSUPP, _) => f.write_str("ENOTSUPP: not supported")?,
            (number, Errno::UnknownErrno) => write!(f, "error {number}")?,
            (_, known) => write!(f, "{known}")?,
        }
        if let Some(RefusedAttribute { offset, kind }) = self.attribute {
            match kind {
                Some(kind) => write!(f, "; attribute {kind} at octet {offset}")?,
                None => write!(f, "; at octet {offset}")?,
            }
        }
        if let Some(missing) = self.missing {
            write!(f, "; without attribute {missing}")?;
        }
        if self.text.is_some() { f.write_str(")") } else { Ok(()) }
    }
}

impl Extack {
    /// The kernel or the driver has no such request (`EOPNOTSUPP`, or the kernel's own `ENOTSUPP`).
    #[must_use]
    pub fn is_unsupported(&self) -> bool {
        [Errno::EOPNOTSUPP as i32, ENOTSUPP].contains(&self.errno)
    }

    /// The request is wrong, as it is and as things are (`EINVAL`, or `ERANGE` of a value). A kernel that does not know one of its
    /// attributes, or this value of it, says the same: then [`attribute`](Extack::attribute) names it.
    #[must_use]
    pub fn is_invalid(&self) -> bool {
        [Errno::EINVAL as i32, Errno::ERANGE as i32].contains(&self.errno)
    }

    /// What the request is about is not there (`ENODEV`, `ENOENT`).
    #[must_use]
    pub fn is_absent(&self) -> bool {
        [Errno::ENODEV as i32, Errno::ENOENT as i32].contains(&self.errno)
    }
}

impl Error {
    /// What the kernel said, if it refused the request.
    #[must_use]
    pub fn refusal(&self) -> Option<&Extack> {
        match self {
            Error::Refused { refusal, .. } => Some(refusal),
            _ => None,
        }
    }

    /// It is about the device that was asked about: that one's driver refused, or its answer made no sense. Any other is about the
    /// socket, and whatever is asked next may end the same.
    #[must_use]
    pub fn is_of_one_device(&self) -> bool {
        matches!(self, Error::Refused { .. } | Error::Malformed { .. })
    }

    /// The kernel or the driver has no such request, see [`Extack::is_unsupported`]; or the kernel has no such family.
    #[must_use]
    pub fn is_unsupported(&self) -> bool {
        matches!(self, Error::NoFamily { .. }) || self.refusal().is_some_and(Extack::is_unsupported)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_one_line() {
        let bare = Extack { errno: 95, text: None, attribute: None, missing: None };
        assert_eq!(bare.to_string(), "EOPNOTSUPP: Operation not supported on transport endpoint");
        assert_eq!(Extack { errno: 524, ..bare.clone() }.to_string(), "ENOTSUPP: not supported");
        assert_eq!(Extack { errno: 4000, ..bare.clone() }.to_string(), "error 4000");
        assert!(bare.is_unsupported() && !bare.is_invalid() && !bare.is_absent());
        let full = Extack {
            errno: 22,
            text: Some("Rate leaf is\nin use.\n".to_owned()),
            attribute: Some(RefusedAttribute { offset: 44, kind: Some(25) }),
            missing: Some(3),
        };
        let error = Error::Refused { request: "set the mode of pci/0000:03:00.0".to_owned(), refusal: full };
        assert_eq!(
            error.to_string(),
            "cannot set the mode of pci/0000:03:00.0: Rate leaf is in use (EINVAL: Invalid argument; attribute 25 at octet 44; \
             without attribute 3)"
        );
        assert!(!error.is_unsupported() && Error::NoFamily { family: "devlink" }.is_unsupported());
    }
}
