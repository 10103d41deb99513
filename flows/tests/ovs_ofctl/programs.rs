//! `ovs-ofctl`, and the messages that it prints with `-mmmmm`: as text, and octet by octet.

use std::io::Write;
use std::process::{Command, Stdio};

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

/// Runs a program with a text to read, and gives what it wrote.
pub(crate) fn output(program: &str, arguments: &[&str], input: &str) -> String {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("these tests need {program} in PATH (openvswitch): {error}"));
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_owned();
    // What it writes may be more than a pipe holds before it has read everything.
    let writer = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
    let done = child.wait_with_output().unwrap();
    let _ = writer.join().unwrap();
    let complaint = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{program} {arguments:?}: {complaint}");
    String::from_utf8(done.stdout).unwrap()
}

/// `ovs-ofctl` in OpenFlow 1.4.
pub(crate) fn ofctl(arguments: &[&str]) -> String {
    ofctl_with(arguments, "")
}

/// The same with something to read.
pub(crate) fn ofctl_with(arguments: &[&str], input: &str) -> String {
    output("ovs-ofctl", &[&["-O", "OpenFlow14"], arguments].concat(), input)
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
