//! JSON with comments, for tests of what goes over the wire.

use serde_json::Value;

/// Reads JSON whose lines may end in `// …`; the text must not have `//` in a string.
pub(crate) fn json(text: &str) -> Value {
    let lines = text.lines().map(|line| line.split("//").next().unwrap_or_default());
    serde_json::from_str(&lines.collect::<Vec<_>>().join("\n")).unwrap()
}
