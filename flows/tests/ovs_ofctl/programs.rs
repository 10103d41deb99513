//! `ovs-ofctl`, and the messages that it prints with `-mmmmm`: as text, and octet by octet.

use vifd_integration::lab::filter;

/// A message as `ovs-ofctl` printed it.
#[derive(Debug)]
pub(crate) struct Message {
    /// The first line.
    pub(crate) text: String,
    octets: Vec<u8>,
}

impl Message {
    /// What is behind the header.
    pub(crate) fn body(&self) -> &[u8] {
        &self.octets[8..]
    }

    /// What is behind the header of a multipart reply.
    pub(crate) fn multipart_body(&self) -> &[u8] {
        &self.octets[16..]
    }
}

/// `ovs-ofctl` in OpenFlow 1.4.
pub(crate) fn ofctl(arguments: &[&str]) -> String {
    ofctl_with(arguments, "")
}

/// The same with something to read.
pub(crate) fn ofctl_with(arguments: &[&str], input: &str) -> String {
    filter("ovs-ofctl", &[&["-O", "OpenFlow14"], arguments].concat(), input).unwrap()
}

/// The messages in what `ovs-ofctl -mmmmm` printed.
pub(crate) fn messages(printed: &str) -> Vec<Message> {
    let mut messages: Vec<Message> = Vec::new();
    for line in printed.lines() {
        if let Some((offset, octets)) = dumped(line) {
            let Some(last) = messages.last_mut() else { continue };
            if offset == 0 && !last.octets.is_empty() {
                // A further message, whose text is not on a line of its own.
                messages.push(Message { text: String::new(), octets });
            } else {
                last.octets.extend(octets);
            }
        } else if line.starts_with("OFP") || line.starts_with("NXST") {
            messages.push(Message { text: line.to_owned(), octets: Vec::new() });
        }
    }
    messages
}

/// A line of a dump: where it begins, and its octets.
fn dumped(line: &str) -> Option<(usize, Vec<u8>)> {
    let (offset, rest) = line.split_once("  ")?;
    let offset = usize::from_str_radix(offset, 16).ok().filter(|_| offset.len() == 8)?;
    let digits = rest.split('|').next()?.replace('-', " ");
    Some((offset, digits.split_whitespace().map(|octet| u8::from_str_radix(octet, 16).unwrap()).collect()))
}

/// A message with a header before its body.
pub(crate) fn with_header(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(8 + body.len()).unwrap().to_be_bytes();
    [&[flows::VERSION, kind, length[0], length[1], 0, 0, 0, 7], body].concat()
}
