//! Programs of others that do what vifd does, or a part of it. os-vif is the lab's
//! ([`vifd_integration::lab::OsVif`]): a process that stays, as nova-compute's does.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use vifd_integration::lab::{Ovs, Record, find_tool, tools_folder};

use crate::hand::BRIDGE;

/// The arguments by which ovs-vsctl adds the ports of these records, in one transaction.
#[must_use]
pub fn vsctl_add(records: &[Record]) -> Vec<String> {
    let mut arguments = Vec::new();
    for record in records {
        let (name, id) = (record.vif_name(), record.id());
        let words = [
            "--",
            "add-port",
            BRIDGE,
            &name,
            "--",
            "set",
            "Port",
            &name,
            &format!("external_ids:vsctl-vif={id}"),
            "other_config:transient=true",
            "--",
            "set",
            "Interface",
            &name,
            &format!("external_ids:iface-id={id}"),
            "external_ids:iface-status=active",
            &format!("external_ids:attached-mac=\"{}\"", record.mac()),
            "external_ids:vm-uuid=6b0c1c1a-7a52-4b5f-8f0e-3a1d8c6f2b01",
        ];
        arguments.extend(words.map(str::to_owned));
    }
    arguments
}

/// Seconds that ovsdb-client takes to dump the database to nobody.
///
/// # Errors
/// When it fails.
pub fn dump(ovs: &Ovs) -> Result<f64> {
    let mut command = Command::new(find_tool("ovsdb-client")?);
    command.args(["--timeout=120", "dump", &ovs.endpoint()]).stdout(Stdio::null());
    let start = Instant::now();
    let status = command.status().context("starting ovsdb-client")?;
    ensure!(status.success(), "ovsdb-client: {status}");
    Ok(start.elapsed().as_secs_f64())
}

/// Seconds from python-ovs' `Idl` being made until it holds the database: these columns of these tables. The
/// interpreter's start is not part of it.
///
/// # Errors
/// When it fails.
pub fn python_idl(ovs: &Ovs, columns: &serde_json::Value) -> Result<f64> {
    let mut command = Command::new(tools_folder().join("venv/bin/python"));
    command.args(["-B", "-W", "ignore", "-c", include_str!("peer/idl.py"), &ovs.endpoint(), &columns.to_string()]);
    let output = command.output().context("starting python")?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "python-ovs: {}\n{errors}", output.status);
    String::from_utf8_lossy(&output.stdout).trim().parse().context("seconds")
}

/// Seconds that os-vif takes to find the netdev that represents each function (PCI address and netdev), by the calls of its
/// plug. It sees the `/sys` of this process, and neither the interpreter's start nor the first time are counted.
///
/// # Errors
/// When it fails, or finds another netdev.
pub fn representors(functions: &[(String, String)]) -> Result<Vec<f64>> {
    let mut command = Command::new(tools_folder().join("venv/bin/python"));
    command.args(["-B", "-W", "ignore", "-c", include_str!("peer/representor.py")]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("starting python")?;
    child.stdin.take().context("a pipe")?.write_all(serde_json::to_string(functions)?.as_bytes())?;
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "os-vif: {}", output.status);
    serde_json::from_slice(&output.stdout).context("seconds")
}

/// What os-ken makes of one flow.
#[derive(Clone, Debug)]
pub struct OsKen {
    /// Seconds that it takes to write a flow.
    pub encode: f64,
    /// Seconds that it takes to read one.
    pub decode: f64,
    /// The body of the message that it wrote.
    pub octets: Vec<u8>,
}

/// Has os-ken write the flow of `codec`, and read `count` flows. The interpreter's start is not part of the times.
///
/// # Errors
/// When it fails.
pub fn os_ken(flows: &[u8], count: u32) -> Result<OsKen> {
    let mut command = Command::new(tools_folder().join("venv/bin/python"));
    command.args(["-B", "-W", "ignore", "-c", include_str!("peer/osken.py"), &count.to_string()]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("starting python")?;
    child.stdin.take().context("a pipe")?.write_all(flows).context("what os-ken reads")?;
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "os-ken: {}", output.status);
    let words = String::from_utf8(output.stdout)?;
    let [encode, decode, hex] = words.split_whitespace().collect::<Vec<_>>()[..] else {
        bail!("os-ken says {words:?}")
    };
    let octets = (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(hex.get(at..at + 2).unwrap_or_default(), 16));
    // Without the header.
    let octets = octets.skip(8).collect::<Result<_, _>>()?;
    Ok(OsKen { encode: encode.parse()?, decode: decode.parse()?, octets })
}
