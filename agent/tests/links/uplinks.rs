//! An interface with addresses and routes goes into a bridge and out again, with somebody at the far end who talks to it all
//! the while.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, unshare};
use vifd::backend::Outcome;
use vifd::backend::links::{LinkOp, Links, LinksConfig, NewKind};
use vifd::model::{BridgeConfig, LinkState};

use super::{PATIENCE, apply, fresh, in_namespace, ip, ready, seen, shown};

const BRIDGE: BridgeConfig =
    BridgeConfig { ageing_time: 30_000, forward_delay: 0, stp: false, multicast_snooping: true };
/// Between two questions of the far end.
const INTERVAL: Duration = Duration::from_millis(10);

/// A thread in a network namespace of its own, joined with ours by `up0` here and `far` there.
struct Far {
    end: Arc<AtomicBool>,
    thread: Option<JoinHandle<Heard>>,
}

/// What the far end found.
#[derive(Debug, Default)]
struct Heard {
    asked: usize,
    unanswered: Vec<usize>,
    /// Longest time between two answers over TCP.
    longest: Duration,
}

impl Far {
    /// `talk` for questions to be put to 10.9.0.2 until the end.
    fn new(talk: bool) -> Self {
        let (said, tid) = mpsc::channel();
        let (go, went) = mpsc::channel::<()>();
        let end = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&end);
        let thread = thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            said.send(nix::unistd::gettid()).unwrap();
            went.recv().unwrap();
            ip("link set lo up");
            ip("link set far up");
            ip("addr add 10.9.0.1/24 dev far");
            ip("addr add 2001:db8:9::1/64 dev far nodad");
            said.send(nix::unistd::gettid()).unwrap();
            went.recv().unwrap();
            if talk {
                return question(&ended);
            }
            while !ended.load(Ordering::Relaxed) {
                thread::sleep(INTERVAL);
            }
            Heard::default()
        });
        let there = tid.recv().unwrap();
        ip("link set lo up");
        ip("link add up0 type veth peer name far");
        ip(&format!("link set far netns {there}"));
        go.send(()).unwrap();
        tid.recv().unwrap();
        furnish();
        go.send(()).unwrap();
        Far { end, thread: Some(thread) }
    }

    fn end(mut self) -> Heard {
        self.end.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap()
    }
}

impl Drop for Far {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
    }
}

/// Everything that an interface may have.
fn furnish() {
    for command in [
        "link set up0 up",
        "link add other type veth peer name rehto",
        "link set other up",
        "link set rehto up",
        "addr add 10.8.0.2/24 dev other",
        "addr add 2001:db8:8::2/64 dev other nodad",
        "addr add 10.9.0.2/24 brd + dev up0",
        "addr add 10.9.0.3/24 dev up0 label up0:1",
        "addr add 10.9.0.4/24 dev up0",
        "addr add 10.9.1.2/24 dev up0 metric 77",
        "addr add 10.9.2.2/24 dev up0 noprefixroute",
        "addr add 10.9.3.2 peer 10.9.3.1/32 dev up0",
        "addr add 2001:db8:9::2/64 dev up0 nodad",
        // This one was looked for.
        "addr add 2001:db8:9::3/64 dev up0",
        "addr add 2001:db8:7::2/64 dev up0 nodad noprefixroute",
        // As NetworkManager has it: the route belongs to an address, and the kernel does not know.
        "route add 10.9.2.0/24 dev up0 proto kernel scope link src 10.9.2.2 metric 100",
        "-6 route add 2001:db8:7::/64 dev up0 proto kernel metric 100",
        "route add default via 10.9.0.1 dev up0 proto dhcp src 10.9.0.3 metric 50",
        "route add default via 10.9.2.1 dev up0 proto static metric 60",
        "route add 198.51.100.0/24 via 10.9.0.1 dev up0 table 100 proto static mtu 1400 advmss 1300",
        "route add 198.51.101.0/24 via 192.0.2.77 dev up0 onlink",
        "route add 203.0.113.0/24 nexthop via 10.9.0.1 dev up0 weight 3 nexthop via 10.8.0.1 dev other",
        "route add 169.254.0.0/16 dev up0 scope link metric 1000",
        "-6 route add default via 2001:db8:9::1 dev up0 metric 1024 expires 3000",
        "-6 route add 2001:db8:a::/64 nexthop via 2001:db8:9::1 dev up0 weight 3 nexthop via 2001:db8:8::1 dev other",
        "-6 route add 2001:db8:b::/64 via 2001:db8:9::1 dev up0 table 100 mtu 1300",
    ] {
        ip(command);
    }
    let begun = Instant::now();
    while shown_by("-6 addr show dev up0 scope global tentative").contains("inet6") {
        assert!(begun.elapsed() < PATIENCE, "duplicate address detection does not end");
        thread::sleep(INTERVAL);
    }
}

/// Asks over UDP and TCP until the end.
fn question(end: &AtomicBool) -> Heard {
    let asking = UdpSocket::bind("10.9.0.1:0").unwrap();
    asking.connect("10.9.0.2:7").unwrap();
    asking.set_nonblocking(true).unwrap();
    let mut stream = loop {
        match TcpStream::connect("10.9.0.2:7") {
            Ok(stream) => break stream,
            // Nobody listens yet.
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => thread::sleep(INTERVAL),
            Err(error) => panic!("{error}"),
        }
    };
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    thread::scope(|scope| {
        let talker = scope.spawn(|| {
            let mut longest = Duration::ZERO;
            while !end.load(Ordering::Relaxed) {
                let begun = Instant::now();
                stream.write_all(b"still there?").unwrap();
                let mut answer = [0; 12];
                stream.read_exact(&mut answer).expect("the connection survives");
                longest = longest.max(begun.elapsed());
                thread::sleep(INTERVAL);
            }
            longest
        });
        let mut answered = BTreeSet::new();
        let mut asked = 0;
        let hear = |answered: &mut BTreeSet<usize>| {
            let mut answer = [0; 8];
            while asking.recv(&mut answer).is_ok() {
                answered.insert(usize::from_ne_bytes(answer));
            }
        };
        while !end.load(Ordering::Relaxed) {
            // One that the kernel cannot send is one that is not answered.
            let _ = asking.send(&usize::to_ne_bytes(asked));
            asked += 1;
            thread::sleep(INTERVAL);
            hear(&mut answered);
        }
        thread::sleep(Duration::from_millis(500));
        hear(&mut answered);
        let unanswered = (0..asked).filter(|number| !answered.contains(number)).collect();
        Heard { asked, unanswered, longest: talker.join().unwrap() }
    })
}

/// Answers in this namespace; the threads end with their sockets' peers or the process.
fn answer() {
    let udp = UdpSocket::bind("10.9.0.2:7").unwrap();
    thread::spawn(move || {
        let mut question = [0; 64];
        while let Ok((length, from)) = udp.recv_from(&mut question) {
            let _ = udp.send_to(&question[..length], from);
        }
    });
    let tcp = TcpListener::bind("10.9.0.2:7").unwrap();
    thread::spawn(move || {
        let (mut stream, _) = tcp.accept().unwrap();
        let mut question = [0; 64];
        loop {
            match stream.read(&mut question) {
                Ok(0) => return,
                Ok(length) => stream.write_all(&question[..length]).unwrap(),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    });
}

fn shown_by(arguments: &str) -> String {
    let output = Command::new("ip").args(arguments.split(' ')).output().unwrap();
    assert!(output.status.success(), "ip {arguments}");
    String::from_utf8(output.stdout).unwrap()
}

/// What `device` has: addresses of global scope and routes of all tables, its name and what the kernel finds out left out.
fn belongings(device: &str) -> Vec<String> {
    let tidy = |line: &str| {
        let mut words: Vec<String> = Vec::new();
        let mut skip = false;
        for word in line.replace('\\', " ").split_whitespace() {
            match word {
                _ if skip => skip = false,
                // What is left of a lifetime.
                "expires" | "valid_lft" | "preferred_lft" => skip = true,
                "linkdown" | "dead" | "forever" => {}
                word => words.push(word.replace(device, "DEVICE")),
            }
        }
        // In no order that anybody chose.
        let words = words.join(" ");
        let mut hops = words.split(" nexthop ");
        let first = hops.next().unwrap().to_owned();
        let hops: BTreeSet<&str> = hops.collect();
        hops.iter().fold(first, |line, hop| format!("{line} nexthop {hop}"))
    };
    let mut all: Vec<String> = shown_by(&format!("-o addr show dev {device} scope global"))
        .lines()
        .map(|line| tidy(line.split_once(": ").map_or(line, |(_, line)| line)))
        .collect();
    for family in ["-4", "-6"] {
        let routes = shown_by(&format!("{family} -o -d route show table all type unicast"));
        let mine = routes.lines().filter(|line| line.split_whitespace().any(|word| word == device));
        all.extend(mine.filter(|line| !line.contains("fe80::/64")).map(tidy));
    }
    all.sort();
    all
}

fn move_it(links: &Links, join: bool) -> LinkOp {
    let [interface, bridge] = ["up0", "br0"].map(|name| {
        let link = seen(links, name).unwrap();
        (link.index, link.name)
    });
    LinkOp::MoveUplink { interface, bridge, mtu: Some(1500), join }
}

fn bridge() -> LinkOp {
    LinkOp::CreateLink { link: Box::new(fresh("br0")), kind: NewKind::Bridge(BRIDGE) }
}

/// `ip monitor`, and whether a default route of each family was there after each of its lines.
struct Monitor {
    child: Child,
    reader: JoinHandle<usize>,
}

impl Monitor {
    fn new() -> Self {
        let mut child = Command::new("ip").args(["-o", "monitor", "route"]).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let known = |family: &str| -> BTreeSet<String> {
            default_routes(&shown_by(&format!("{family} -o route show default")))
        };
        let mut routes = [known("-4"), known("-6")];
        let reader = thread::spawn(move || {
            let mut events = 0;
            for line in lines {
                let line = line.unwrap();
                let (line, gone) = line.strip_prefix("Deleted ").map_or((line.as_str(), false), |line| (line, true));
                for route in default_routes(line) {
                    events += 1;
                    let of = &mut routes[usize::from(route.contains("2001:"))];
                    let news = if gone { of.remove(&route) } else { of.insert(route.clone()) };
                    assert!(!of.is_empty(), "no default route after {line:?} (news: {news})");
                }
            }
            events
        });
        // It says nothing when it is ready: until it hears of this.
        thread::sleep(Duration::from_millis(300));
        Monitor { child, reader }
    }

    /// How many words about default routes there were.
    fn end(mut self) -> usize {
        thread::sleep(Duration::from_millis(300));
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.reader.join().unwrap()
    }
}

/// Each gateway and device over which a default route goes. IPv6 tells of routes beside each other as of one with several.
fn default_routes(text: &str) -> BTreeSet<String> {
    let of = |line: &str| -> Vec<String> {
        let words: Vec<&str> = line.split_whitespace().filter(|word| *word != "\\").collect();
        if words.first() != Some(&"default") {
            return Vec::new();
        }
        let hops = words.windows(4).filter(|hop| hop[0] == "via" && hop[2] == "dev");
        hops.map(|hop| hop.join(" ")).collect()
    };
    text.lines().flat_map(of).collect()
}

#[test]
fn an_uplink_goes_into_a_bridge_and_comes_back_under_traffic() {
    in_namespace(|| async {
        let far = Far::new(true);
        answer();
        let (mut links, _) = ready(LinksConfig::default()).await;
        ip("link set up0 mtu 1400");
        assert_eq!(apply(&mut links, [bridge()]).await, [Outcome::Done]);
        let before = belongings("up0");
        assert!(before.len() > 20, "{before:#?}");
        tokio::time::sleep(Duration::from_millis(500)).await;
        let monitor = Monitor::new();

        let begun = Instant::now();
        let join = move_it(&links, true);
        assert_eq!(apply(&mut links, [join.clone()]).await, [Outcome::Done]);
        let joined = begun.elapsed();
        assert_eq!(belongings("br0"), before);
        assert_eq!(belongings("up0"), [""; 0]);
        let (up0, br0) = (seen(&links, "up0").unwrap(), seen(&links, "br0").unwrap());
        assert_eq!((up0.master, up0.mtu, up0.up), (Some(br0.index), 1500, true));
        assert!(up0.addresses.is_empty() && br0.addresses.len() == 9, "{up0:?} {br0:?}");
        tokio::time::sleep(Duration::from_millis(1000)).await;
        // Done again it changes nothing.
        assert_eq!(apply(&mut links, [join]).await, [Outcome::Done]);
        assert_eq!(belongings("br0"), before);

        let begun = Instant::now();
        let leave = move_it(&links, false);
        assert_eq!(apply(&mut links, [leave.clone()]).await, [Outcome::Done]);
        let left = begun.elapsed();
        assert_eq!(belongings("up0"), before);
        assert_eq!(belongings("br0"), [""; 0]);
        let (up0, br0) = (seen(&links, "up0").unwrap(), seen(&links, "br0").unwrap());
        assert_eq!((up0.master, up0.mtu), (None, 1500));
        assert!(up0.addresses.len() == 9 && br0.addresses.is_empty(), "{up0:?} {br0:?}");
        tokio::time::sleep(Duration::from_millis(1500)).await;
        assert_eq!(apply(&mut links, [leave]).await, [Outcome::Done]);
        assert_eq!(belongings("up0"), before);

        let events = monitor.end();
        assert!(events >= 8, "the monitor heard of {events} changes of default routes");
        let heard = far.end();
        eprintln!(
            "joined in {joined:?}, left in {left:?}: {} of {} lost, longest answer over TCP {:?}, {events} events about \
             default routes",
            heard.unanswered.len(),
            heard.asked,
            heard.longest
        );
        // What gets lost is what arrives within the milliseconds between two steps.
        assert!(heard.asked >= 200 && heard.unanswered.len() <= heard.asked / 20, "{heard:?}");
    });
}

/// The other half of the next test: to and fro until it is killed.
#[test]
#[ignore = "run by a_move_is_finished_by_the_same_operation, which kills it"]
fn victim() {
    if std::env::var("VICTIM_ROUND").is_err() {
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (mut links, _) = ready(LinksConfig::default()).await;
        println!("started");
        for join in std::iter::successors(Some(true), |join| Some(!join)) {
            let op = move_it(&links, join);
            apply(&mut links, [op]).await;
        }
    });
}

#[test]
fn a_move_is_finished_by_the_same_operation() {
    in_namespace(|| async {
        const ROUNDS: u64 = 40;
        let far = Far::new(false);
        let (mut links, _) = ready(LinksConfig::default()).await;
        assert_eq!(apply(&mut links, [bridge()]).await, [Outcome::Done]);
        // Whether duplicates were looked for is all that a crash may forget.
        let belongings = |device: &str| -> Vec<String> {
            belongings(device).iter().map(|line| line.replace(" nodad", "")).collect()
        };
        let before = belongings("up0");
        let mut halfway = 0;
        for round in 0..ROUNDS {
            let mut victim = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "uplinks::victim", "--ignored", "--nocapture"])
                .env("VICTIM_ROUND", round.to_string())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let mut lines = BufReader::new(victim.stdout.take().unwrap()).lines();
            assert!(lines.any(|line| line.unwrap().ends_with("started")));
            thread::sleep(Duration::from_micros(500 + round * 1973));
            victim.kill().unwrap();
            victim.wait().unwrap();
            if !belongings("up0").is_empty() && !belongings("br0").is_empty() {
                halfway += 1;
            }
            let join = round % 2 == 0;
            let op = move_it(&links, join);
            assert_eq!(apply(&mut links, [op]).await, [Outcome::Done], "round {round}");
            let (there, gone) = if join { ("br0", "up0") } else { ("up0", "br0") };
            assert_eq!(belongings(there), before, "round {round}");
            assert_eq!(belongings(gone), [""; 0], "round {round}");
            assert_eq!(seen(&links, "up0").unwrap().master.is_some(), join);
        }
        eprintln!("{halfway} of {ROUNDS} crashes were in the middle of it");
        assert!(halfway > 0, "no crash was in the middle of it");
        far.end();
    });
}

#[test]
fn an_interface_that_is_elsewhere_or_gone_is_a_conflict() {
    in_namespace(|| async {
        let (mut links, _) = ready(LinksConfig::default()).await;
        ip("link add up0 type veth peer name far");
        ip("link add foreign type bridge");
        ip("link set up0 master foreign");
        assert_eq!(apply(&mut links, [bridge()]).await, [Outcome::Done]);
        let op = move_it(&links, true);
        let outcomes = apply(&mut links, [op.clone()]).await;
        assert!(matches!(&outcomes[0], Outcome::Conflict(why) if why.contains("another bridge")), "{outcomes:?}");
        ip("link delete up0");
        let outcomes = apply(&mut links, [op]).await;
        assert!(matches!(&outcomes[0], Outcome::Conflict(why) if why.contains("gone")), "{outcomes:?}");
    });
}

/// A bridge has the least address of its ports' unless it was given one (`br_stp_recalculate_bridge_id`).
#[test]
fn a_bridge_has_the_address_of_its_uplink_whoever_else_is_in_it() {
    in_namespace(|| async {
        let (mut links, mut view) = ready(LinksConfig::default()).await;
        ip("link add up0 address 52:54:00:00:00:01 type veth peer name far");
        assert_eq!(apply(&mut links, [bridge()]).await, [Outcome::Done]);
        let op = move_it(&links, true);
        assert_eq!(apply(&mut links, [op]).await, [Outcome::Done]);
        ip("link add less address 02:00:00:00:00:01 type veth peer name more");
        ip("link set less up master br0");
        let is_in = |state: &LinkState| state.links.get("less").is_some_and(|less| less.master.is_some());
        shown(&mut view, "less is in br0", is_in).await;
        assert_eq!(seen(&links, "br0").unwrap().mac, seen(&links, "up0").unwrap().mac);
    });
}

/// An interface that has a macvtap cannot be in a bridge (`netdev_rx_handler_register`), and keeps what it has.
#[test]
fn an_interface_that_the_kernel_does_not_let_into_a_bridge_keeps_its_addresses_and_the_bridge_gets_none() {
    in_namespace(|| async {
        let far = Far::new(false);
        let (mut links, _) = ready(LinksConfig::default()).await;
        ip("link add link up0 name taken type macvtap mode bridge");
        assert_eq!(apply(&mut links, [bridge()]).await, [Outcome::Done]);
        let before = belongings("up0");
        let op = move_it(&links, true);
        let outcomes = apply(&mut links, [op]).await;
        assert!(matches!(&outcomes[0], Outcome::Failed(_)), "{outcomes:?}");
        assert_eq!(belongings("br0"), [""; 0]);
        assert_eq!(belongings("up0"), before);
        far.end();
    });
}
