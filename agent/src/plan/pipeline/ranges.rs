//! A range of ports as values under masks, which is what flows match.

/// The fewest pairs of value and mask that match every port from `first` to `last`, both included, and no other; none
/// when `last` is before `first`. A range takes at most 30; all ports are one, whose mask is 0.
#[must_use]
pub(super) fn masked(first: u16, last: u16) -> Vec<(u16, u16)> {
    let (mut next, last) = (u32::from(first), u32::from(last));
    let mut found = Vec::new();
    while next <= last {
        // The largest block that begins here and does not reach too far.
        let aligned = if next == 0 { 16 } else { next.trailing_zeros() };
        let bits = (0..=aligned.min(16)).rev().find(|bits| next + (1 << bits) - 1 <= last).unwrap_or(0);
        found.push((next as u16, (0xffff_u32 << bits) as u16));
        next += 1 << bits;
    }
    found
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(80, 80, &[(80, 0xffff)])]
    #[case(0, 65535, &[(0, 0)])]
    #[case(1, 65535, &[(1, 0xffff), (2, 0xfffe), (4, 0xfffc), (8, 0xfff8), (16, 0xfff0), (32, 0xffe0), (64, 0xffc0),
        (128, 0xff80), (256, 0xff00), (512, 0xfe00), (1024, 0xfc00), (2048, 0xf800), (4096, 0xf000), (8192, 0xe000),
        (16384, 0xc000), (32768, 0x8000)])]
    #[case(1000, 1003, &[(1000, 0xfffc)])]
    #[case(65535, 65535, &[(65535, 0xffff)])]
    #[case(2, 1, &[])]
    fn blocks(#[case] first: u16, #[case] last: u16, #[case] expected: &[(u16, u16)]) {
        assert_eq!(masked(first, last), expected);
    }

    proptest! {
        #[test]
        fn every_port_once(a: u16, b: u16) {
            let (first, last) = (a.min(b), a.max(b));
            let blocks = masked(first, last);
            prop_assert!(blocks.len() <= 30);
            for port in [0, first.saturating_sub(1), first, first / 2 + last / 2, last, last.saturating_add(1), u16::MAX] {
                let matched = blocks.iter().filter(|(value, mask)| port & mask == *value).count();
                prop_assert_eq!(matched, usize::from((first..=last).contains(&port)), "{}", port);
            }
            let ports: u32 = blocks.iter().map(|(_, mask)| u32::from(!mask) + 1).sum();
            prop_assert_eq!(ports, u32::from(last - first) + 1);
        }
    }
}
