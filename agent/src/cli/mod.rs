//! The command line: what can be said, and who does it. `vifd run` is the agent itself; `validate`, `schema`,
//! `completions`, `queue` and most of `doctor` need none; everything else asks the running agent over its socket.
//! Reference: `docs/cli.md`.

mod bundle;
mod describe;
mod flows;
mod host;
mod import;
mod local;
mod nics;
mod output;
mod picture;
mod queue;
mod trace;
mod vifs;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::builder::PossibleValuesParser;
use clap::{Args, CommandFactory as _, Parser, Subcommand, ValueEnum};
use nix::sys::signal::{SigSet, Signal};

use self::output::{Format, Output};
use crate::api::client::{Client, ClientError};
use crate::api::parse_time;
use crate::config::{Config, ConfigError, DEFAULT_PATH};
use crate::model::{VifId, VifKind};
use crate::privileges;
use crate::queue::QueueError;
use crate::status::Phase;

/// What was asked for is not done.
const FAILED: u8 = 1;
/// The command line makes no sense.
const USAGE: u8 = 2;
/// The time to wait ran out.
const NOT_IN_TIME: u8 = 3;
/// The agent, or the queue, cannot be reached.
const UNREACHABLE: u8 = 4;

/// The whole command line.
#[derive(Debug, Parser)]
#[command(
    name = "vifd",
    version,
    about = "Keeps the virtual interfaces of this host the way a controller wants them",
    after_help = "Examples:
  vifd status                      the host as a picture
  vifd plug alice.json --wait      plug a VIF and wait until traffic can pass
  vifd describe tap1               everything about one VIF, by port, guest or id
  vifd plan                        what would change next, and why
  vifd doctor                      what is wrong with this host, and what to do

Exit codes: 0 done, 1 failed, 2 usage, 3 not ready in time, 4 agent or queue not reachable."
)]
struct Arguments {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    verb: Verb,
}

/// The heading of what every verb understands.
const GLOBAL: &str = "Global options";

/// What every verb understands.
#[derive(Args, Clone, Debug)]
struct Common {
    // What clap takes from the environment itself, it shows as if it had to be said.
    /// The configuration file; also $VIFD_CONFIG
    #[arg(
        long, global = true, help_heading = GLOBAL, value_name = "FILE",
        default_value_os_t = environment("VIFD_CONFIG").unwrap_or_else(|| DEFAULT_PATH.into())
    )]
    config: PathBuf,
    /// Socket of the agent, instead of the configured one; also $VIFD_SOCKET
    #[arg(long, global = true, help_heading = GLOBAL, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// How answers are written
    #[arg(short, long, global = true, help_heading = GLOBAL, value_enum, default_value_t = Format::Table)]
    output: Format,
}

/// A path that the environment says, where it says one.
fn environment(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run the agent
    #[command(after_help = "The agent runs until SIGTERM; ports and traffic stay as they are then. SIGHUP reads the \
configuration again. Normally systemd starts it: systemctl start vifd

Example:
  vifd run --config ./vifd.toml")]
    Run,
    /// Hand records to the agent
    #[command(after_help = "Examples:
  vifd plug alice.json                    hand it in and come back at once
  vifd plug *.json --wait                 wait until every VIF is ready
  vifd plug alice.json --wait=plugged     wait until all that vifd does is done, e.g. before the guest starts
  generate | vifd plug - --wait           a record from standard input

A record is a file as `vifd schema` describes it; os-vif objects are taken as they are. All files are checked \
before the first is handed in.")]
    Plug(Plug),
    /// Delete VIFs: their records go, and what vifd made for them on the host; the bridge of a network stays
    #[command(after_help = "Example:
  vifd unplug dc065497-3c8d-4f44-8fb4-e1d33c16a536 --wait")]
    Unplug(Unplug),
    /// List VIFs, or show one
    #[command(after_help = "Examples:
  vifd get --phase failed,conflict        those that need somebody
  vifd get tap1 -o yaml                   one, by port, guest or id
  vifd get --watch -o json                every change, one JSON object per line
  vifd get alice --watch                  every change of one

In the column PHASE, `ready*` is a VIF whose newest record is refused: the one before it is in force.")]
    Get(Get),
    /// Show everything about one VIF: conditions and what was seen on the host
    #[command(after_help = "Examples:
  vifd describe tap1                      by the name of its port or device
  vifd describe alice                     by the name of its guest
  vifd describe dc065497                  by the beginning of its id")]
    Describe {
        /// Id, the beginning of one, or the name of its port, device or guest
        vif: String,
    },
    /// Show the flows that a switch has for a VIF, a network or a bridge
    #[command(after_help = "Examples:
  vifd flows                              what there is on each bridge, and whose
  vifd flows tap1                         those of one VIF, by port, guest or id
  vifd flows tap1 --no-stats              the same without what they counted
  vifd flows --network blue               what the VIFs of a network share: floods, and its uplink
  vifd flows --bridge br-int              what all VIFs of a bridge share
  vifd flows --bridge br-int --foreign    those that are somebody else's

The text is that of `ovs-ofctl dump-flows`, by tables; docs/flows.md says what each table is for. A line with + is \
wanted and not there, one with - there and not wanted, or not like that: `vifd plan` says what is done about it. \
A switch may lag a second behind with its counters.")]
    Flows(Flows),
    /// Tell where a packet from a VIF would go, or one to it; nothing is sent
    #[command(after_help = "Examples:
  vifd trace tap1                         it asks for its gateway, by ARP
  vifd trace tap1 --to tap2               it pings another VIF, by port, guest or id
  vifd trace tap1 --to 10.0.0.7 --tcp-dst 22
                                          a connection to an IP address
  vifd trace tap1 --to 52:54:00:12:34:57  to a MAC address
  vifd trace tap1 --from-uplink           from outside to it
  vifd trace tap1 --flow icmp,dl_src=52:54:00:99:99:99,dl_dst=ff:ff:ff:ff:ff:ff,nw_src=10.0.0.9
                                          a packet in the words of ovs-fields(7), here with a source that is not its own
  vifd trace tap1 --to tap2 --ct-next trk,est
                                          as a connection that is known already

What is not said is taken from the record: its MAC address, its first fixed IP address. ovs-vswitchd itself is asked \
(ofproto/trace), so flows of others count too. Connection tracking is taken to say that the packet is the first of its \
connection (trk,new), unless --ct-next says what it says: once for each time that it is asked. At the end is one \
sentence: who gets the packet, or why and in which table it is dropped; docs/flows.md has the tables and the reasons.")]
    Trace(TraceArgs),
    /// Draw the host: bridges, ports, guests, and what is wrong
    #[command(after_help = "Examples:
  vifd status --watch                     go on drawing whenever something changes
  vifd status -o json                     the host and its VIFs as one object")]
    Status {
        /// Draw it again whenever something changes
        #[arg(short, long)]
        watch: bool,
        /// Draw every VIF of a bridge, however many there are
        #[arg(long)]
        all: bool,
    },
    /// List the NICs that can give functions to guests: mode, functions, who has these, what is in the way
    #[command(after_help = "Examples:
  vifd nics                               those that can switch in hardware, or have virtual functions
  vifd nics -o json                       with every function, who has it or not

docs/offload.md says how a host comes to VIFs whose flows are in hardware.")]
    Nics,
    /// Show what would change next, and why; nothing is done
    #[command(after_help = "Example:
  vifd plan -o json                       operations, and why VIFs are not ready, for programs")]
    Plan,
    /// List what is here to be taken over from os-vif, with the records that it would need; nothing is done
    #[command(after_help = "Examples:
  vifd import                             what os-vif, libvirt or an earlier vifd made and carries no mark of vifd's
  vifd import --bridge br-int             that on one bridge
  vifd import -o json                     with what says so, and the record that each would need

A record has what the host tells; `unknown` names what it does not, such as the network's id and the rules: the \
controller knows these. No record is written. Taking over is done by handing in the records with adopt = \"os-vif\" \
under [agent] in the configuration: docs/migration.md has the steps.")]
    Import {
        /// Only what is on this bridge
        #[arg(long)]
        bridge: Option<String>,
    },
    /// Check records without handing them in; needs no agent
    #[command(after_help = "Example:
  vifd validate /var/lib/vifd/vifs/*.json")]
    Validate {
        /// Files to check; - is standard input
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
    },
    /// Print the JSON Schema of records
    #[command(after_help = "Example:
  vifd schema > vif.schema.json")]
    Schema,
    /// Check this host and say what to do about what is wrong
    #[command(after_help = "Example:
  vifd doctor || echo 'something is wrong'

Best run as root: it looks at what the agent needs, on behalf of the agent's user. The exit code is 1 when something is \
wrong (✗); what only may be wrong (!) leaves it 0.")]
    Doctor,
    /// Leave a VIF, or everything, as it is until resumed; also over a restart
    #[command(after_help = "Examples:
  vifd pause tap1                         one VIF
  vifd pause                              everything")]
    Pause {
        /// Id, the beginning of one, or name of port, device or guest; everything when left out
        vif: Option<String>,
    },
    /// End a pause
    #[command(after_help = "Examples:
  vifd resume tap1                        one VIF
  vifd resume                             everything, those that were paused one by one too")]
    Resume {
        /// Id, the beginning of one, or name of port, device or guest; everything when left out
        vif: Option<String>,
    },
    /// Take vifd's marks off the host and leave traffic running; the agent is paused afterwards
    #[command(
        after_help = "For taking vifd off a host: ports, links and their traffic stay, but they are nobody's any more. \
`vifd resume` takes up work again and finds them foreign: a conflict for each VIF. To take them over again, set \
adopt = \"os-vif\" under [agent] in the configuration, `systemctl reload vifd`, then `vifd resume`.

Example:
  vifd release --yes"
    )]
    Release {
        /// Do it; without this, only say what it means
        #[arg(long)]
        yes: bool,
    },
    /// Let removals go ahead that were stopped because too many records are absent at once
    #[command(after_help = "Examples:
  vifd plan                               lists what would go
  vifd confirm-removals                   lets it go")]
    ConfirmRemovals,
    /// Feed hosts by the queue, and see how they are; needs no agent on this host
    #[command(after_help = "Examples:
  vifd queue status --server nats://nats.example.org:4222
  vifd queue put compute-1 alice.json --wait        with $VIFD_QUEUE saying where the queue is
  vifd queue put --help                             each verb is explained

Exit codes are as everywhere; 4 is a queue that cannot be reached.")]
    Queue(queue::QueueArgs),
    /// Write what is needed to look into a problem to a new directory
    #[command(after_help = "Example:
  vifd support-bundle /tmp/vifd-support")]
    SupportBundle {
        /// The directory to make; by default named after host and time, in the current one
        directory: Option<PathBuf>,
    },
    /// Print a completion script
    #[command(after_help = "Example:
  vifd completions bash > /etc/bash_completion.d/vifd")]
    Completions {
        /// For which shell
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
}

#[derive(Args, Debug)]
struct Plug {
    /// Records; - is standard input
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Wait until each VIF is so
    #[arg(long, value_enum, value_name = "STATE", num_args = 0..=1, require_equals = true, default_missing_value = "ready")]
    wait: Option<Wait>,
    /// How long to wait for each, e.g. 90s, 2m, or bare seconds; 600s at most
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = parse_time)]
    timeout: Duration,
}

#[derive(Args, Debug)]
struct Unplug {
    /// Ids of the VIFs
    #[arg(required = true, value_name = "ID", value_parser = whole_id)]
    vifs: Vec<VifId>,
    /// Wait until nothing is left of them
    #[arg(long)]
    wait: bool,
    /// How long to wait for each, e.g. 90s, 2m, or bare seconds; 600s at most
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = parse_time)]
    timeout: Duration,
}

#[derive(Args, Debug)]
struct Get {
    /// Id, the beginning of one, or the name of its port, device or guest; all VIFs when left out
    vif: Option<String>,
    /// Only VIFs in these phases, with commas between them
    #[arg(long, value_name = "PHASE", conflicts_with = "vif", value_delimiter = ',', value_parser = phases())]
    phase: Vec<String>,
    /// Only VIFs on this bridge
    #[arg(long, conflicts_with = "vif")]
    bridge: Option<String>,
    /// Only VIFs of this type
    #[arg(long = "type", value_name = "TYPE", conflicts_with = "vif", value_parser = VifKind::TYPE_NAMES)]
    kind: Option<String>,
    /// Go on with every change until interrupted
    #[arg(short, long)]
    watch: bool,
}

#[derive(Args, Debug)]
struct Flows {
    /// Id, the beginning of one, or the name of its port, device or guest; a count for each bridge when left out
    #[arg(conflicts_with_all = ["network", "bridge"])]
    vif: Option<String>,
    /// What the VIFs of this network share: its id, or its label in the records
    #[arg(long, value_name = "NETWORK")]
    network: Option<String>,
    /// What all VIFs of this bridge share; with --network, the bridge that is meant
    #[arg(long)]
    bridge: Option<String>,
    /// Those on the bridge that are somebody else's
    #[arg(long, requires = "bridge", conflicts_with = "network")]
    foreign: bool,
    /// Without packets, octets and ages
    #[arg(long)]
    no_stats: bool,
}

#[derive(Args, Debug)]
struct TraceArgs {
    /// Id, the beginning of one, or the name of its port, device or guest
    vif: String,
    /// Where to: a VIF, a MAC or an IP address; its gateway when left out
    #[arg(long, value_name = "VIF|MAC|IP", conflicts_with_all = ["from_uplink", "flow"])]
    to: Option<String>,
    /// Who has this address: ARP, or neighbour discovery for IPv6
    #[arg(long, group = "kind")]
    arp: bool,
    /// An echo request; so it is, when there is nothing but --to
    #[arg(long, group = "kind")]
    icmp: bool,
    /// TCP to this port
    #[arg(long, group = "kind", value_name = "PORT", value_parser = port_number)]
    tcp_dst: Option<u16>,
    /// UDP to this port
    #[arg(long, group = "kind", value_name = "PORT", value_parser = port_number)]
    udp_dst: Option<u16>,
    /// The packet in the words of ovs-fields(7); its in_port is the VIF's unless it says another
    #[arg(long, value_name = "FLOW", conflicts_with = "kind")]
    flow: Option<String>,
    /// Towards the VIF, from its network's uplink
    #[arg(long)]
    from_uplink: bool,
    /// What connection tracking says, such as trk,new or trk,est,rpl; may be given several times
    #[arg(long, value_name = "STATE", value_parser = tracked)]
    ct_next: Vec<String>,
    /// What Open vSwitch says, as it says it
    #[arg(long)]
    raw: bool,
}

fn port_number(word: &str) -> Result<u16, String> {
    word.parse().map_err(|_| "a port is a number from 0 to 65535".to_owned())
}

/// A state of connection tracking in the words of `ovs-fields(7)` (`ct_state`).
fn tracked(word: &str) -> Result<String, String> {
    const FLAGS: [&str; 8] = ["new", "est", "rel", "rpl", "inv", "trk", "snat", "dnat"];
    match word.split([',', '|']).find(|flag| !FLAGS.contains(flag)) {
        None => Ok(word.to_owned()),
        Some(flag) => Err(format!("{flag:?} is none of {}", FLAGS.join(", "))),
    }
}

/// An id and nothing shorter: what a deletion is for is not to be guessed.
fn whole_id(word: &str) -> Result<VifId, String> {
    word.parse().map_err(|_| "unplug wants the whole id (`vifd get` shows it)".to_owned())
}

fn phases() -> PossibleValuesParser {
    PossibleValuesParser::new(Phase::ALL.map(Phase::name))
}

/// What `plug` waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Wait {
    /// All that vifd itself can do is done.
    Plugged,
    /// Traffic can pass.
    Ready,
}

/// Why a verb is not done.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Queue(#[from] QueueError),
    /// The queue is not there; one sentence.
    #[error("{0}")]
    Unreachable(String),
    /// A configuration file that cannot be used, with what does without it.
    #[error("{0}")]
    Configuration(String),
    /// What was asked about is not there.
    #[error("{0}")]
    Unknown(String),
    /// One sentence.
    #[error("{0}")]
    Other(String),
    /// Something that was said already, with the exit code.
    #[error("")]
    Said(u8),
}

impl Failure {
    fn exit_code(&self) -> u8 {
        match self {
            Failure::Client(error) if error.is_unreachable() => UNREACHABLE,
            Failure::Client(error) if error.is_timeout() => NOT_IN_TIME,
            Failure::Unreachable(_) => UNREACHABLE,
            Failure::Queue(error) if queue::is_unreachable(error) => UNREACHABLE,
            Failure::Client(_)
            | Failure::Queue(_)
            | Failure::Config(_)
            | Failure::Configuration(_)
            | Failure::Unknown(_)
            | Failure::Other(_) => FAILED,
            Failure::Said(code) => *code,
        }
    }

    /// The word for programs, the agent's own where it spoke, and the field or parameter to blame.
    fn code(&self) -> (String, String) {
        let word = match self {
            Failure::Client(ClientError::Refused { body, .. }) => {
                return (body.error.code.clone(), body.error.field.clone());
            }
            Failure::Client(error) if error.is_unreachable() => "unreachable",
            Failure::Queue(error) if queue::is_unreachable(error) => "unreachable",
            Failure::Unreachable(_) => "unreachable",
            Failure::Config(_) | Failure::Configuration(_) => "bad_configuration",
            Failure::Unknown(_) => "not_found",
            Failure::Client(_) | Failure::Queue(_) | Failure::Other(_) | Failure::Said(_) => "failed",
        };
        (word.to_owned(), String::new())
    }
}

impl Common {
    fn client(&self) -> Result<Client, Failure> {
        let socket = match &self.socket {
            Some(socket) => socket.clone(),
            None => match Config::load(&self.config) {
                Ok(config) => config.api.socket,
                // The agent runs on with what it read before: who asks it is to see more than this error.
                Err(error) => match socket_alone(&self.config) {
                    Some(socket) => {
                        let words =
                            format!("{:#}; asking {} all the same", anyhow::Error::from(error), socket.display());
                        Output::of_process(self.output).warning("", &words);
                        socket
                    }
                    None => {
                        let error = anyhow::Error::from(error);
                        let hint = "(`--socket PATH` does without it)";
                        return Err(Failure::Configuration(format!("{error:#} {hint}")));
                    }
                },
            },
        };
        Ok(Client::new(socket))
    }
}

/// `api.socket` of a file in which something else is wrong; none where the file is not TOML or has another kind of thing
/// there.
fn socket_alone(file: &Path) -> Option<PathBuf> {
    let file: toml::Table = std::fs::read_to_string(file).ok()?.parse().ok()?;
    match file.get("api").map(|api| api.get("socket")) {
        None | Some(None) => Some(Config::default().api.socket),
        Some(Some(socket)) => socket.as_str().map(PathBuf::from).filter(|socket| socket.is_absolute()),
    }
}

/// Does what the command line says.
#[must_use]
pub fn main() -> ExitCode {
    let mut arguments = Arguments::parse();
    arguments.common.socket = arguments.common.socket.or_else(|| environment("VIFD_SOCKET"));
    if matches!(arguments.verb, Verb::Run) {
        return run(&arguments.common).unwrap_or_else(|error| {
            eprintln!("vifd: {error:#}");
            ExitCode::from(FAILED)
        });
    }
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("vifd: cannot start: {error}");
            return ExitCode::from(FAILED);
        }
    };
    let output = Output::of_process(arguments.common.output);
    match runtime.block_on(dispatch(&arguments.common, arguments.verb, &output)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let code = failure.exit_code();
            if !matches!(failure, Failure::Said(_)) {
                let (word, field) = failure.code();
                output.error(&word, &field, &format!("{:#}", anyhow::Error::from(failure)));
            }
            ExitCode::from(code)
        }
    }
}

/// The agent. What holds for the whole process comes before the runtime, whose threads inherit it.
fn run(common: &Common) -> anyhow::Result<ExitCode> {
    // A parent may have left them blocked, and an agent that cannot be told to end has to be killed.
    let signals: SigSet = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP].into_iter().collect();
    if let Err(error) = signals.thread_unblock() {
        eprintln!("vifd: cannot unblock signals: {error}");
    }
    let config = Config::load(&common.config)?;
    privileges::give_up(&config)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(crate::run::run(common.config.clone(), config))
}

async fn dispatch(common: &Common, verb: Verb, output: &Output) -> Result<(), Failure> {
    match verb {
        Verb::Run => unreachable!("the agent does not get here"),
        Verb::Plug(plug) => vifs::plug(&common.client()?, plug, output).await,
        Verb::Unplug(unplug) => vifs::unplug(&common.client()?, unplug, output).await,
        Verb::Get(get) => vifs::get(&common.client()?, get, output).await,
        Verb::Describe { vif } => describe::describe(&common.client()?, &vif, output).await,
        Verb::Flows(flows) => flows::flows(&common.client()?, flows, output).await,
        Verb::Trace(args) => trace::trace(&common.client()?, args, output).await,
        Verb::Status { watch, all } => host::status(&common.client()?, watch, all, output).await,
        Verb::Nics => nics::nics(&common.client()?, output).await,
        Verb::Plan => host::plan(&common.client()?, output).await,
        Verb::Import { bridge } => import::import(&common.client()?, bridge.as_deref(), output).await,
        Verb::Validate { files } => local::validate(&files, output),
        Verb::Schema => local::schema(output),
        Verb::Doctor => local::doctor(common, output).await,
        Verb::Pause { vif } => host::pause(&common.client()?, vif.as_deref(), true, output).await,
        Verb::Resume { vif } => host::pause(&common.client()?, vif.as_deref(), false, output).await,
        Verb::Release { yes } => host::release(common, yes, output).await,
        Verb::ConfirmRemovals => host::confirm_removals(&common.client()?, output).await,
        Verb::Queue(args) => queue::queue(args, output).await,
        Verb::SupportBundle { directory } => bundle::write(common, directory, output).await,
        Verb::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), "vifd", &mut script);
            output.text(&String::from_utf8_lossy(&script));
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &str) -> Result<Arguments, clap::Error> {
        Arguments::try_parse_from(words.split(' '))
    }

    #[test]
    fn the_definition_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn waits_have_a_default_and_take_no_file_for_a_state() {
        let plug = |words| match parse(words).unwrap().verb {
            Verb::Plug(plug) => plug,
            other => panic!("{other:?}"),
        };
        assert_eq!(plug("vifd plug a.json").wait, None);
        let waiting = plug("vifd plug --wait a.json b.json --timeout 5s");
        assert_eq!((waiting.wait, waiting.files.len()), (Some(Wait::Ready), 2));
        assert_eq!(waiting.timeout, Duration::from_secs(5));
        assert_eq!(plug("vifd plug a.json --wait=plugged").wait, Some(Wait::Plugged));
    }

    #[test]
    fn times_may_be_bare_seconds_and_have_a_bound_that_is_named() {
        let Verb::Unplug(unplug) = parse("vifd unplug dc065497-3c8d-4f44-8fb4-e1d33c16a536 --timeout 5").unwrap().verb
        else {
            panic!("not unplug")
        };
        assert_eq!(unplug.timeout, Duration::from_secs(5));
        let error = parse("vifd plug a --timeout 20m").unwrap_err().to_string();
        assert!(error.contains("600 s"), "{error}");
        let error = parse("vifd unplug tap1").unwrap_err().to_string();
        assert!(error.contains("whole id"), "{error}");
    }

    #[test]
    fn types_are_those_that_records_have() {
        let schema = crate::record::json_schema().to_string();
        for name in VifKind::TYPE_NAMES {
            assert!(schema.contains(&format!("\"{name}\"")), "{name}");
        }
    }

    #[test]
    fn common_options_may_stand_behind_the_verb() {
        let arguments = parse("vifd get --config /c -o json --socket /s").unwrap();
        assert_eq!(arguments.common.config, PathBuf::from("/c"));
        assert_eq!(arguments.common.socket, Some(PathBuf::from("/s")));
        assert_eq!(arguments.common.output, Format::Json);
    }

    #[test]
    fn a_wrong_key_elsewhere_hides_no_socket() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("vifd.toml");
        let alone = |text: &str| {
            std::fs::write(&file, text).unwrap();
            assert!(Config::load(&file).is_err(), "{text}");
            socket_alone(&file)
        };
        assert_eq!(alone("[api]\nsocket = \"/s\"\n[agent]\nmoed = 1\n"), Some("/s".into()));
        assert_eq!(alone("[agent]\nmode = \"x\"\n"), Some(Config::default().api.socket));
        assert_eq!(alone("[api]\nsocket = 7\n"), None);
        assert_eq!(alone("[api\n"), None);
        assert_eq!(socket_alone(&dir.path().join("none")), None);
    }

    #[test]
    fn what_makes_no_sense_is_a_usage_error() {
        for words in [
            "vifd",
            "vifd plug",
            "vifd plug a --wait=gone",
            "vifd unplug tap1",
            "vifd get x --phase ready",
            "vifd get --phase ready,bogus",
            "vifd get --type nonsense",
            "vifd get -o xml",
            "vifd plug a --wait --timeout 601s",
            "vifd plug a --wait --timeout soon",
            "vifd flows x --bridge br-int",
            "vifd flows --foreign",
            "vifd trace",
            "vifd trace x --arp --icmp",
            "vifd trace x --tcp-dst http",
            "vifd trace x --udp-dst 65536",
            "vifd trace x --ct-next xyz",
            "vifd trace x --ct-next trk,",
            "vifd trace x --flow ip --to y",
            "vifd import x",
            "vifd import --bridge",
            "vifd nics x",
            "vifd validate",
            "vifd completions tcl",
        ] {
            assert_eq!(parse(words).unwrap_err().exit_code(), 2, "{words}");
        }
    }

    #[test]
    fn every_verb_is_explained() {
        for verb in Arguments::command().get_subcommands() {
            assert!(verb.get_about().is_some(), "{}", verb.get_name());
            let more = verb.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(more.contains(&format!("\n  vifd {}", verb.get_name())), "{} has no example", verb.get_name());
            let reference = include_str!("../../../docs/cli.md");
            assert!(reference.contains(&format!("`vifd {}", verb.get_name())), "docs/cli.md: {}", verb.get_name());
        }
    }
}
