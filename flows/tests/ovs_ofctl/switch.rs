//! A switch with a bridge on the dummy datapath, and what is sent to it octet by octet.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use vifd_integration::lab::PlainOvs;

use crate::programs::with_header;

/// How long anything may take on a busy machine before a test fails.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Switch(PlainOvs);

impl Switch {
    /// A switch whose bridge `br0` has the ports 1 to 3.
    pub(crate) fn start() -> Self {
        let switch = Switch(PlainOvs::switch(Vec::new()).unwrap());
        let mut bridge = vec!["add-br", "br0", "--", "set", "bridge", "br0", "datapath_type=dummy", "fail_mode=secure"];
        for (port, request) in [("p1", "ofport_request=1"), ("p2", "ofport_request=2"), ("p3", "ofport_request=3")] {
            bridge.extend(["--", "add-port", "br0", port, "--", "set", "interface", port, "type=dummy", request]);
        }
        switch.0.vsctl(&bridge).unwrap();
        switch
    }

    /// A command of `ovs-ofctl` on the bridge: what stands before the bridge, what behind it, what it reads.
    pub(crate) fn ofctl_with(&self, before: &[&str], behind: &[&str], input: &str) -> String {
        self.0.ofctl("br0", before, behind, input).unwrap()
    }

    /// Sends messages, given by their types and bodies, and fails if the switch refuses one of them.
    pub(crate) fn send(&self, messages: impl IntoIterator<Item = (u8, Vec<u8>)>) {
        let mut connection = UnixStream::connect(self.0.path("br0.mgmt")).unwrap();
        connection.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut out = with_header(0, &[]);
        messages.into_iter().for_each(|(kind, body)| out.extend(with_header(kind, &body)));
        // A barrier's reply is the last.
        out.extend(with_header(20, &[]));
        connection.write_all(&out).unwrap();
        loop {
            let mut header = [0; 8];
            connection.read_exact(&mut header).unwrap();
            let mut body = vec![0; usize::from(u16::from_be_bytes([header[2], header[3]])) - 8];
            connection.read_exact(&mut body).unwrap();
            match header[1] {
                1 => panic!(
                    "refused: {}",
                    crate::programs::ofctl(&["ofp-print", &crate::hex(&[&header[..], &body].concat())])
                ),
                21 => break,
                _ => {}
            }
        }
    }
}
