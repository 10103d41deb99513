//! A dump of a datapath's flows: every line is read or passed over, and what is counted is what was read.

use vifd::offload::{DatapathFlow, Expectation, Expectations, Ground, Offloaded, prove};

pub(crate) fn check(data: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(data) else { return false };
    let flows: Vec<DatapathFlow<'_>> = text.lines().filter_map(DatapathFlow::parse).collect();
    let Some(first) = flows.first() else { return false };
    // Whoever the first flow is from, as a VIF.
    let port = first.in_port().to_owned();
    let id = "00000001-0000-4000-8000-000000000000".parse().expect("a UUID");
    let expected: Expectations = [(id, Expectation { port: port.clone(), ..Expectation::default() })].into();
    let of_it = |flow: &&DatapathFlow<'_>| flow.in_port() == port || flow.outputs().contains(&port.as_str());
    let its: Vec<&DatapathFlow<'_>> = flows.iter().filter(of_it).collect();
    let hardware = its.iter().filter(|flow| flow.offloaded == Offloaded::Yes).count() as u64;
    for hw_offload in [false, true] {
        let ground = Ground { hw_offload, ..Ground::default() };
        let proofs = prove(text, &ground, &expected);
        let proof = proofs.get(&id).expect("a proof of every VIF");
        let counts = proof.counts.as_ref().expect("counts of a dump that was read");
        assert_eq!(counts.offloaded_flows, hardware, "flows in hardware");
        assert_eq!(counts.offloaded_flows + counts.software_flows, its.len() as u64, "flows");
        assert!(!proof.message.is_empty() && proof.message.len() < 4096, "a message of {} bytes", proof.message.len());
    }
    true
}
