//! What a switch says when it refuses a request: `OFPT_ERROR` (OpenFlow 1.4.1, 7.5.4), with the extensions of Nicira and
//! ONF. The names of errors are in `error/names.rs`.

mod names;

use std::fmt;

use bytes::{BufMut, Bytes, BytesMut};

use crate::DecodeError;
use crate::wire::Reader;

/// `OFPET_EXPERIMENTER`.
const EXPERIMENTER: u16 = 0xffff;
/// Nicira's OUI, by which its extensions go.
pub const NX_VENDOR_ID: u32 = 0x2320;
/// By which proposals of the Open Networking Foundation go.
pub const ONF_VENDOR_ID: u32 = 0x4f4e_4600;

/// Who defined an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Vendor {
    /// The OpenFlow specification.
    Standard,
    /// Nicira, which is to say Open vSwitch.
    Nicira,
    /// The Open Networking Foundation, outside the specification.
    Onf,
    /// Somebody else, by experimenter id.
    Other(u32),
}

/// An error of the switch.
#[derive(Clone, PartialEq, Eq, Hash, thiserror::Error)]
pub struct SwitchError {
    /// Who defined it.
    pub vendor: Vendor,
    /// `OFPET_*`; a vendor's own number where it is a vendor's.
    pub kind: u16,
    /// Code within the kind; 0 where it is a vendor's.
    pub code: u16,
    /// The request that failed, or its beginning; a text where the hello failed.
    pub data: Bytes,
}

impl SwitchError {
    /// Reads what is behind the header of an `OFPT_ERROR`.
    ///
    /// # Errors
    /// It is none.
    pub fn decode(body: &Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body, "error");
        let (mut kind, mut code) = (reader.u16()?, reader.u16()?);
        let mut vendor = Vendor::Standard;
        if kind == EXPERIMENTER {
            vendor = match reader.u32()? {
                NX_VENDOR_ID => Vendor::Nicira,
                ONF_VENDOR_ID => Vendor::Onf,
                other => Vendor::Other(other),
            };
            (kind, code) = (code, 0);
        }
        Ok(Self { vendor, kind, code, data: body.slice_ref(reader.bytes()) })
    }

    /// Writes what is behind the header.
    pub fn encode(&self, out: &mut BytesMut) {
        let vendor = match self.vendor {
            Vendor::Standard => None,
            Vendor::Nicira => Some(NX_VENDOR_ID),
            Vendor::Onf => Some(ONF_VENDOR_ID),
            Vendor::Other(id) => Some(id),
        };
        match vendor {
            None => {
                out.put_u16(self.kind);
                out.put_u16(self.code);
            }
            Some(id) => {
                out.put_u16(EXPERIMENTER);
                out.put_u16(self.kind);
                out.put_u32(id);
            }
        }
        out.put_slice(&self.data);
    }

    /// The name that Open vSwitch gives it, e.g. `OFPBAC_BAD_OUT_PORT`.
    #[must_use]
    pub fn name(&self) -> Option<&'static str> {
        names::describe(self.vendor, self.kind, self.code).map(|(name, _)| name)
    }

    /// What it means, in words.
    #[must_use]
    pub fn meaning(&self) -> Option<&'static str> {
        names::describe(self.vendor, self.kind, self.code).map(|(_, meaning)| meaning)
    }
}

impl fmt::Display for SwitchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (names::describe(self.vendor, self.kind, self.code), self.vendor) {
            (Some((name, meaning)), _) => write!(f, "{meaning} ({name})"),
            (None, Vendor::Standard) => write!(f, "error of type {} and code {}", self.kind, self.code),
            (None, Vendor::Nicira) => write!(f, "Nicira's error {}", self.kind),
            (None, Vendor::Onf) => write!(f, "ONF's error {}", self.kind),
            (None, Vendor::Other(id)) => write!(f, "error {} of the experimenter {id:#x}", self.kind),
        }
    }
}

impl fmt::Debug for SwitchError {
    /// Without the request, of which there can be 64 KiB.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SwitchError({self}, {} octets of request)", self.data.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_standard_error_both_ways() {
        let bytes = Bytes::from_static(&[
            0x00, 0x02, // type: OFPET_BAD_ACTION
            0x00, 0x04, // code: OFPBAC_BAD_OUT_PORT
            0x05, 0x0e, // the request
        ]);
        let error = SwitchError::decode(&bytes).unwrap();
        assert_eq!((error.vendor, error.kind, error.code, &error.data[..]), (Vendor::Standard, 2, 4, &[5, 14][..]));
        assert_eq!(error.to_string(), "an output port is invalid (OFPBAC_BAD_OUT_PORT)");
        let mut out = BytesMut::new();
        error.encode(&mut out);
        assert_eq!(out, bytes);
    }

    #[test]
    fn a_nicira_error_both_ways() {
        let bytes = Bytes::from_static(&[
            0xff, 0xff, // type: OFPET_EXPERIMENTER
            0x00, 0x0f, // experimenter type: NXBAC_BAD_CONJUNCTION
            0x00, 0x00, 0x23, 0x20, // experimenter: Nicira
        ]);
        let error = SwitchError::decode(&bytes).unwrap();
        assert_eq!(error.name(), Some("NXBAC_BAD_CONJUNCTION"));
        let mut out = BytesMut::new();
        error.encode(&mut out);
        assert_eq!(out, bytes);
    }

    #[test]
    fn errors_that_nobody_named_and_pieces_of_errors() {
        let error = SwitchError { vendor: Vendor::Other(0x4ea), kind: 3, code: 0, data: Bytes::new() };
        assert_eq!(error.to_string(), "error 3 of the experimenter 0x4ea");
        let error = SwitchError { vendor: Vendor::Standard, kind: 99, code: 1, data: Bytes::new() };
        assert_eq!((error.name(), error.to_string()), (None, "error of type 99 and code 1".to_owned()));
        for length in 0..4 {
            SwitchError::decode(&Bytes::from_static(&[0xff, 0xff, 0, 1][..length])).unwrap_err();
        }
        SwitchError::decode(&Bytes::from_static(&[0xff, 0xff, 0, 1, 0, 0, 0])).unwrap_err();
    }
}
