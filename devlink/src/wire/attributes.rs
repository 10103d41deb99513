//! Netlink attributes (`struct nlattr`): read from a slice with every length checked, and written.

use super::Malformed;

/// Length and type, two octets each.
const HEADER: usize = 4;
/// `NLA_F_NESTED`: there are attributes in it.
const NESTED: u16 = 1 << 15;
/// What is left of a type without `NLA_F_NESTED` and `NLA_F_NET_BYTEORDER` (`NLA_TYPE_MASK`).
const TYPE: u16 = (1 << 14) - 1;

/// One attribute, as it lies in its message.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attribute<'a> {
    /// Its type, without flags.
    pub(crate) kind: u16,
    payload: &'a [u8],
}

impl<'a> Attribute<'a> {
    fn fixed<const N: usize>(&self) -> Result<[u8; N], Malformed> {
        let wrong = Malformed::Size { kind: self.kind, len: self.payload.len(), expected: N };
        self.payload.try_into().map_err(|_| wrong)
    }

    pub(crate) fn u8(&self) -> Result<u8, Malformed> {
        self.fixed().map(u8::from_ne_bytes)
    }

    pub(crate) fn u16(&self) -> Result<u16, Malformed> {
        self.fixed().map(u16::from_ne_bytes)
    }

    pub(crate) fn u32(&self) -> Result<u32, Malformed> {
        self.fixed().map(u32::from_ne_bytes)
    }

    pub(crate) fn u64(&self) -> Result<u64, Malformed> {
        self.fixed().map(u64::from_ne_bytes)
    }

    /// A flag in an octet: anything but 0 is set.
    pub(crate) fn bool(&self) -> Result<bool, Malformed> {
        self.u8().map(|value| value != 0)
    }

    /// `struct nla_bitfield32`: values, and which of its bits mean anything.
    pub(crate) fn bitfield(&self) -> Result<(u32, u32), Malformed> {
        let both = u64::from_ne_bytes(self.fixed()?).to_ne_bytes();
        let half = |from: usize| u32::from_ne_bytes(std::array::from_fn(|octet| both[from + octet]));
        Ok((half(0), half(4)))
    }

    /// What comes before the first NUL. Octets that are no UTF-8, which names of links may have, are replaced: such a
    /// name is for showing only.
    pub(crate) fn text(&self) -> String {
        let end = self.payload.iter().position(|octet| *octet == 0).unwrap_or(self.payload.len());
        String::from_utf8_lossy(&self.payload[..end]).into_owned()
    }

    pub(crate) fn bytes(&self) -> &'a [u8] {
        self.payload
    }

    /// The attributes in it.
    pub(crate) fn nested(&self) -> Attributes<'a> {
        Attributes(self.payload)
    }
}

/// The attributes of a slice, in order. After the first that is malformed there is nothing more.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attributes<'a>(&'a [u8]);

impl<'a> Attributes<'a> {
    pub(crate) fn new(octets: &'a [u8]) -> Self {
        Attributes(octets)
    }

    /// The octets that are still to be read.
    pub(crate) fn octets(self) -> &'a [u8] {
        self.0
    }

    /// All of a type, up to the first that is malformed.
    pub(crate) fn of_kind(self, kind: u16) -> impl Iterator<Item = Result<Attribute<'a>, Malformed>> {
        self.filter(move |attribute| attribute.as_ref().map_or(true, |attribute| attribute.kind == kind))
    }

    /// The first of a type, which has to be there.
    pub(crate) fn need(self, kind: u16) -> Result<Attribute<'a>, Malformed> {
        self.find_kind(kind)?.ok_or(Malformed::Missing { kind })
    }

    /// The first of a type.
    pub(crate) fn find_kind(self, kind: u16) -> Result<Option<Attribute<'a>>, Malformed> {
        self.of_kind(kind).next().transpose()
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = Result<Attribute<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        let octets = std::mem::take(&mut self.0);
        if octets.is_empty() {
            return None;
        }
        let malformed = |said| Some(Err(Malformed::Length { what: "an attribute", said, there: octets.len() }));
        let Some(([length_low, length_high, type_low, type_high], _)) = octets.split_first_chunk() else {
            return malformed(HEADER);
        };
        let length = usize::from(u16::from_ne_bytes([*length_low, *length_high]));
        let kind = u16::from_ne_bytes([*type_low, *type_high]) & TYPE;
        let Some(payload) = octets.get(HEADER..length) else { return malformed(length) };
        // The last one may lack its padding.
        self.0 = octets.get(length.next_multiple_of(HEADER)..).unwrap_or_default();
        Some(Ok(Attribute { kind, payload }))
    }
}

/// Attributes that are being written.
#[derive(Clone, Debug, Default)]
pub(crate) struct Writer(Vec<u8>);

impl Writer {
    /// What was written, a multiple of four octets.
    pub(crate) fn octets(&self) -> &[u8] {
        &self.0
    }

    /// Writes one attribute. What does not fit into 65,531 octets is cut: nothing that this crate sends comes near, and
    /// the kernel refuses names of more than some dozen octets.
    pub(crate) fn bytes(&mut self, kind: u16, payload: &[u8]) -> &mut Self {
        let room = usize::from(u16::MAX) - HEADER;
        let payload = payload.get(..room).unwrap_or(payload);
        let length = u16::try_from(HEADER + payload.len()).unwrap_or(u16::MAX);
        self.0.extend_from_slice(&length.to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(payload);
        self.0.resize(self.0.len().next_multiple_of(HEADER), 0);
        self
    }

    pub(crate) fn u8(&mut self, kind: u16, value: u8) -> &mut Self {
        self.bytes(kind, &[value])
    }

    pub(crate) fn u16(&mut self, kind: u16, value: u16) -> &mut Self {
        self.bytes(kind, &value.to_ne_bytes())
    }

    pub(crate) fn u32(&mut self, kind: u16, value: u32) -> &mut Self {
        self.bytes(kind, &value.to_ne_bytes())
    }

    pub(crate) fn u64(&mut self, kind: u16, value: u64) -> &mut Self {
        self.bytes(kind, &value.to_ne_bytes())
    }

    /// With the NUL that the kernel's own have.
    pub(crate) fn text(&mut self, kind: u16, value: &str) -> &mut Self {
        self.bytes(kind, &[value.as_bytes(), &[0]].concat())
    }

    pub(crate) fn bitfield(&mut self, kind: u16, value: u32, selector: u32) -> &mut Self {
        self.bytes(kind, &[value.to_ne_bytes(), selector.to_ne_bytes()].concat())
    }

    pub(crate) fn nested(&mut self, kind: u16, fill: impl FnOnce(&mut Writer)) -> &mut Self {
        let mut inside = Writer::default();
        fill(&mut inside);
        self.bytes(kind | NESTED, &inside.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_attribute_is_read_and_written() {
        let mut writer = Writer::default();
        writer.text(1, "pci").nested(145, |function| {
            function.u8(2, 1);
        });
        #[rustfmt::skip]
        let octets = [
            8, 0, // length: the header and "pci" with its NUL
            1, 0, // DEVLINK_ATTR_BUS_NAME
            b'p', b'c', b'i', 0,
            12, 0, // length: two headers, an octet, and its padding
            145, 0x80, // DEVLINK_ATTR_PORT_FUNCTION, nested
            5, 0, // length without padding
            2, 0, // DEVLINK_PORT_FN_ATTR_STATE
            1, 0, 0, 0, // active; padding
        ];
        let written = writer.octets().to_vec();
        #[cfg(target_endian = "little")]
        assert_eq!(written, octets);
        let read: Vec<_> = Attributes::new(&written).collect::<Result<_, _>>().unwrap();
        assert_eq!((read[0].kind, read[0].text()), (1, "pci".to_owned()));
        let state = read[1].nested().find_kind(2).unwrap().unwrap();
        assert_eq!((read.len(), read[1].kind, state.u8()), (2, 145, Ok(1)));
    }

    #[test]
    fn lengths_that_lie_end_it() {
        let cases: [(&[u8], usize, usize); 4] = [
            (&[4, 0, 1], 4, 3),          // less than a header
            (&[3, 0, 1, 0], 3, 4),       // shorter than its header
            (&[9, 0, 1, 0, 7], 9, 5),    // longer than what there is
            (&[0, 0, 0, 0, 0, 0], 0, 6), // no length at all: it must not be read for ever
        ];
        for (octets, said, there) in cases {
            let mut attributes = Attributes::new(octets);
            let error = attributes.next().unwrap().unwrap_err();
            assert_eq!(error, Malformed::Length { what: "an attribute", said, there });
            assert!(attributes.next().is_none());
        }
        assert_eq!(
            Attributes::new(&[6, 0, 3, 0, 1, 1]).next().unwrap().unwrap().u32(),
            Err(Malformed::Size { kind: 3, len: 2, expected: 4 })
        );
    }

    proptest! {
        #[test]
        fn any_octets_are_read_to_an_end(octets: Vec<u8>) {
            let mut payloads = 0;
            for attribute in Attributes::new(&octets).flatten() {
                payloads += attribute.bytes().len() + HEADER;
                prop_assert!(attribute.text().len() <= 3 * attribute.bytes().len());
                prop_assert!(attribute.nested().count() <= attribute.bytes().len());
            }
            prop_assert!(payloads <= octets.len());
        }

        #[test]
        fn what_is_written_is_read(all in prop::collection::vec((0u16..TYPE, prop::collection::vec(any::<u8>(), 0..40)), 0..8)) {
            let mut writer = Writer::default();
            for (kind, payload) in &all {
                writer.bytes(*kind, payload);
            }
            let octets = writer.octets().to_vec();
            let read = Attributes::new(&octets).map(|one| one.map(|one| (one.kind, one.bytes().to_vec())));
            prop_assert_eq!(read.collect::<Result<Vec<_>, _>>(), Ok(all));
        }
    }
}
