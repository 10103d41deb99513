//! Which netdev represents a virtual function: by sysfs alone, beside os-vif, on a made tree of a NIC.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use devlink::{FunctionAddress, PciAddress, Representor, Sysfs};
use vifd::backend::Backend as _;
use vifd::backend::nics::{Nics, NicsConfig};
use vifd::model::View;
use vifd_integration::lab::{filter, find_tool};

use super::stage::Stage;
use crate::finding::times;
use crate::timing::quantile;
use crate::{Chart, Finding, Role, Scale, Unit, elsewhere, peer, rounds};

// The trees of devlink's own tests.
#[path = "../../../devlink/tests/nics/tree.rs"]
#[allow(dead_code, clippy::unwrap_used, reason = "it is made for tests, of which these are not all")]
mod tree;

use tree::{Says, Tree};

const FLOOR: &str = "floor";
const VIFD: &str = "vifd";
const OS_VIF: &str = "os-vif";

/// PCI functions of the host that have nothing to do with it.
const OTHERS: usize = 40;

/// Measures.
pub(super) fn measure(stage: &mut Stage) -> Result<Finding> {
    elsewhere::in_namespaces("lookup", stage.scale)
}

/// The part in namespaces of its own.
pub(super) fn part(scale: Scale) -> Result<Finding> {
    let mut finding = Finding::new(
        "lookup",
        "Which netdev represents a function",
        "By sysfs alone, as with a driver of which devlink does not tell: a made tree of a NIC with two ports in switchdev mode,
         all virtual functions on the first of them, and 40 other PCI functions, mounted over `/sys`. Its files are in memory, where a
         driver's would take a lock and some a question to the NIC: programs are compared, not NICs. os-vif: the three calls of
         its plug (`get_vf_num_by_pci_address`, `get_ifname_by_pci_address`, `get_representor_port`), in an interpreter that has done
         it all once before. vifd, one: its library asked for one function with nothing read before, which the agent
         never does. The floor looks through `virtfn*` of the function's `physfn` and `phys_port_name` of netdevs until
         each fits, and checks nothing. All of them: the same one after the other; vifd, one look: the look by which its
         backend knows all functions with their drivers, groups and representors, which it takes after events and after what it does
         to a NIC, not for each VIF; its samples were taken after the others, not in turns.",
    );
    let mut one = Chart::new("lookup-one", "The representor of one function", "functions", Unit::Seconds);
    let mut all = Chart::new("lookup-all", "The representors of all functions", "functions", Unit::Seconds);
    for functions in scale.pick(&[16, 64, 127][..], &[16, 64]) {
        at(*functions, scale.pick(9, 3), &mut one, &mut all).with_context(|| format!("{functions} functions"))?;
    }
    for x in one.sizes() {
        let what = format!("{x} functions");
        finding.at_most(&format!("{what}, one: no slower than os-vif"), one.ratio(VIFD, OS_VIF, x), 1.0, times);
        finding.at_most(
            &format!("{what}, all: no slower than os-vif"),
            all.ratio("vifd, one look", OS_VIF, x),
            1.0,
            times,
        );
        let p99 = one.series.iter().filter_map(|series| {
            let point = series.points.iter().find(|point| (point.x - x).abs() < f64::EPSILON)?;
            Some(format!("{} {}", series.who, Unit::Seconds.show(quantile(&point.samples, 0.99))))
        });
        finding.notes.push(format!("p99 of one of {what}: {}.", p99.collect::<Vec<_>>().join(", ")));
    }
    finding.charts = vec![one, all];
    Ok(finding)
}

fn at(functions: u8, turns: usize, one: &mut Chart, all: &mut Chart) -> Result<()> {
    let wanted = functions_of(functions);
    let tree = nic(&wanted)?;
    links(&tree)?;
    let _mounted = Mounted::over_sys(&tree.path(""))?;
    let sysfs = Sysfs::system()?;
    let samples: [Vec<Vec<f64>>; 3] = rounds(turns, |side, _| match side {
        0 => each(&wanted, by_hand),
        1 => each(&wanted, |address| by_vifd(&sysfs, address)),
        _ => peer::representors(&wanted),
    })?;
    let x = f64::from(functions);
    for ((who, role), samples) in
        [(FLOOR, Role::Floor), (VIFD, Role::Ours), (OS_VIF, Role::Peer)].into_iter().zip(samples)
    {
        let sums = samples.iter().map(|round| round.iter().sum()).collect();
        if who == VIFD {
            all.add("vifd, one look", Role::Ours, x, looks(&wanted, turns)?);
            all.add("vifd, one by one", Role::Part, x, sums);
        } else {
            all.add(who, role, x, sums);
        }
        one.add(who, role, x, samples.concat());
    }
    Ok(())
}

/// Virtual functions by address, and the netdevs that represent them. The names of these are in no order.
fn functions_of(count: u8) -> Vec<(String, String)> {
    let address = |vf: u8| format!("0000:03:{:02x}.{}", (vf + 2) / 8, (vf + 2) % 8);
    (0..count).map(|vf| (address(vf), format!("eth{}", (u32::from(vf) * 53 + 7) % u32::from(count)))).collect()
}

/// A ConnectX with two ports (`mlx5/core/en_rep.c`).
fn nic(functions: &[(String, String)]) -> Result<Tree> {
    let tree = Tree::new();
    for number in 0..OTHERS {
        let address = format!("0000:00:{:02x}.{}", number / 8, number % 8);
        tree.pci(&address, 0x8086, 0x6f00).driver("pcieport");
        tree.file(&format!("bus/pci/devices/{address}/class"), "0x060400\n");
    }
    let uplink = |port| Says { switch: ["b8599f0300ff6a3c", "b8599f0300ff6a3d"][port], port: ["p0", "p1"][port] };
    tree.pci("0000:03:00.1", 0x15b3, 0x101d).driver("mlx5_core").sriov(127).netdev("uplink1", uplink(1));
    let addresses: Vec<String> = functions.iter().map(|(address, _)| address.clone()).collect();
    let mut pf = tree.pci("0000:03:00.0", 0x15b3, 0x101d).driver("mlx5_core").sriov(127).vfs(0x101e, &addresses);
    pf = pf.netdev("uplink0", uplink(0));
    for (vf, (_, netdev)) in functions.iter().enumerate() {
        let port = format!("pf0vf{vf}");
        pf = pf.netdev(netdev, Says { port: &port, ..uplink(0) });
    }
    Ok(tree)
}

/// Links with the names and indices of the tree's netdevs: the agent believes in no netdev that its network namespace has not.
fn links(tree: &Tree) -> Result<()> {
    let mut batch = String::new();
    // Those of the tree before.
    for (_, name) in
        nix::net::if_::if_nameindex()?.iter().map(|one| (one.index(), one.name().to_string_lossy().into_owned()))
    {
        if name != "lo" {
            batch += &format!("link del {name}\n");
        }
    }
    for entry in fs::read_dir(tree.path("class/net"))? {
        let name = entry?.file_name().into_string().ok().context("a name")?;
        let index = tree.read(&format!("class/net/{name}/ifindex"));
        batch += &format!("link add name {name} index {} type bridge\n", index.trim());
    }
    filter("ip", &["-batch", "-"], &batch).map(drop)
}

/// A tree that is `/sys` for a while.
struct Mounted;

impl Mounted {
    fn over_sys(tree: &Path) -> Result<Mounted> {
        let status = Command::new(find_tool("mount")?).arg("--bind").arg(tree).arg("/sys").status()?;
        ensure!(status.success(), "mounting over /sys: {status}");
        Ok(Mounted)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let done = Command::new("umount").arg("/sys").status();
        if !done.as_ref().is_ok_and(std::process::ExitStatus::success) {
            eprintln!("a tree stays mounted over /sys until this process ends: {done:?}");
        }
    }
}

/// Seconds for each function.
fn each(functions: &[(String, String)], find: impl Fn(&str) -> Result<String>) -> Result<Vec<f64>> {
    let timed = |(address, wanted): &(String, String)| {
        let start = Instant::now();
        let found = find(address)?;
        let took = start.elapsed().as_secs_f64();
        ensure!(found == *wanted, "{address} is represented by {wanted}, not by {found}");
        Ok(took)
    };
    functions.iter().map(timed).collect()
}

fn by_vifd(sysfs: &Sysfs, address: &str) -> Result<String> {
    let address: FunctionAddress = address.parse()?;
    match sysfs.representor(&address, &[], &sysfs.netdevs(|_, _| {})?)? {
        Representor::Found(found) => Ok(found.netdev),
        other => bail!("{other:?}"),
    }
}

fn by_hand(address: &str) -> Result<String> {
    let physical = PathBuf::from(format!("/sys/bus/pci/devices/{address}/physfn"));
    let named = |entry: &fs::DirEntry| Some(entry.file_name().to_str()?.strip_prefix("virtfn")?.to_owned());
    let is_it = |entry: &fs::DirEntry| {
        fs::read_link(entry.path()).is_ok_and(|link| link.file_name().is_some_and(|name| name == address))
    };
    let number = fs::read_dir(physical)?
        .filter_map(Result::ok)
        .find_map(|entry| named(&entry).filter(|_| is_it(&entry)))
        .context("its number")?;
    let port = format!("pf0vf{number}\n");
    let fits =
        |entry: &fs::DirEntry| fs::read_to_string(entry.path().join("phys_port_name")).is_ok_and(|it| it == port);
    let found = fs::read_dir("/sys/class/net")?.filter_map(Result::ok).find(fits).context("its representor")?;
    Ok(found.file_name().to_string_lossy().into_owned())
}

/// Seconds for each look of the agent's backend at everything.
fn looks(functions: &[(String, String)], turns: usize) -> Result<Vec<f64>> {
    let state = tempfile::tempdir()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut nics = Nics::spawn(NicsConfig::new(state.path()))?;
        let mut samples = Vec::new();
        for _ in 0..=turns {
            nics.resync().await;
            samples.push(std::time::Duration::from_micros(nics.statistics().last_read_us).as_secs_f64());
        }
        let View::Ready(seen) = nics.observe().borrow().clone() else { bail!("nothing was read") };
        for (address, wanted) in functions {
            let (_, _, function) =
                seen.function(&FunctionAddress::Pci(address.parse::<PciAddress>()?)).map_err(anyhow::Error::msg)?;
            let found = function.representor.netdev().map(|port| port.name.as_str());
            ensure!(found == Some(wanted), "the agent takes {found:?} for what represents {address}");
        }
        // The first one had the caches to fill.
        Ok(samples.split_off(1))
    })
}
