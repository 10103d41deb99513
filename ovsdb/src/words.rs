//! What rows say again and again, kept once: thousands of ports have the same keys, the same owner, the same status.
//!
//! A small table of what was read lately. What is not in it costs memory and nothing else, so it never has to be
//! right, only small.

use std::hash::{BuildHasher, Hasher};

use crate::pairs::Pairs;
use crate::text::Text;

/// Texts that are remembered. Row by row the same few come again, and with them what the row itself says twice.
const TEXTS: usize = 1024;
/// Longer ones, in bytes, are rarely said twice.
const LONGEST: usize = 64;
/// Maps that are remembered.
const MAPS: usize = 128;

/// What was read lately.
#[derive(Debug)]
pub struct Words {
    texts: Box<[Option<Text>]>,
    maps: Box<[Option<Pairs>]>,
    /// Where a text lies is nobody's to choose but ours, else a peer could have all of them lie in one place.
    hasher: std::hash::RandomState,
    /// A map being read, kept for its room.
    pairs: Vec<(Text, Text)>,
}

impl Default for Words {
    fn default() -> Self {
        Self {
            texts: vec![None; TEXTS].into(),
            maps: vec![None; MAPS].into(),
            hasher: std::hash::RandomState::new(),
            pairs: Vec::new(),
        }
    }
}

impl Words {
    /// This text, the one that was read before if it was.
    pub fn text(&mut self, text: &str) -> Text {
        if text.len() > LONGEST {
            return text.into();
        }
        let place = usize::try_from(self.hasher.hash_one(text) % TEXTS as u64).unwrap_or(0);
        match &self.texts[place] {
            Some(known) if known == text => known.clone(),
            _ => {
                let new: Text = text.into();
                self.texts[place] = Some(new.clone());
                new
            }
        }
    }

    /// Room for a map to be read into; to be given back with [`Words::map`].
    pub(crate) fn room(&mut self) -> Vec<(Text, Text)> {
        std::mem::take(&mut self.pairs)
    }

    /// The map of these pairs, the one that was read before if it was. `None` when a key is there twice.
    pub(crate) fn map(&mut self, mut pairs: Vec<(Text, Text)>) -> Option<Pairs> {
        pairs.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        let twice = pairs.windows(2).any(|pair| pair[0].0 == pair[1].0);
        let map = (!twice).then(|| self.known_map(&pairs));
        pairs.clear();
        self.pairs = pairs;
        map
    }

    fn known_map(&mut self, pairs: &[(Text, Text)]) -> Pairs {
        if pairs.is_empty() {
            return Pairs::default();
        }
        // Equal texts are mostly one text here, so where they are tells maps apart.
        let mut hasher = self.hasher.build_hasher();
        for (key, value) in pairs {
            hasher.write_usize(key.as_ptr().addr());
            hasher.write_usize(value.as_ptr().addr());
        }
        let place = usize::try_from(hasher.finish() % MAPS as u64).unwrap_or(0);
        match &self.maps[place] {
            Some(known) if known.as_slice() == pairs => known.clone(),
            _ => {
                let new = Pairs::from_sorted(pairs);
                self.maps[place] = Some(new.clone());
                new
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_again_is_held_once() {
        let mut words = Words::default();
        let mut map = |pairs: &[(&str, &str)]| {
            let mut room = words.room();
            room.extend(pairs.iter().map(|(key, value)| (words.text(key), words.text(value))));
            words.map(room)
        };
        let first = map(&[("b", "2"), ("a", "1")]).unwrap();
        let again = map(&[("a", "1"), ("b", "2")]).unwrap();
        assert_eq!(first, Pairs::from([("a", "1"), ("b", "2")]));
        assert_eq!(first.as_slice().as_ptr(), again.as_slice().as_ptr());
        assert_eq!(map(&[("a", "1"), ("a", "2")]), None);
        assert_eq!(map(&[]), Some(Pairs::default()));
        let long = "x".repeat(LONGEST + 1);
        assert!(!words.text(&long).is(&words.text(&long)));
        assert!(words.text("short").is(&words.text("short")));
    }
}
