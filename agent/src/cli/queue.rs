//! `queue …`: what a controller does, from the command line. Which verbs there are, and the connection that they share;
//! writing is in `queue/writes`, looking in `queue/fleet`. None of them needs an agent on this host.

mod fleet;
mod following;
mod writes;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use tokio::time::timeout;

use super::output::Output;
use super::{Failure, USAGE, Wait};
use crate::api::parse_time;
use crate::model::VifId;
use crate::queue::{Credentials, HostToken, Options, Queue, QueueError};

/// Records, by host and VIF.
const RECORDS: &str = "vifs";
/// What hosts tell of their VIFs, under the same keys.
const STATUSES: &str = "vif-status";
/// What hosts tell of themselves, by host.
const HOSTS: &str = "vif-hosts";
/// How long a connection may take to be made: a server or two that are away are passed over in this time.
const CONNECT: Duration = Duration::from_secs(10);
/// The heading of what is about the connection.
const CONNECTION: &str = "Connection";

/// `vifd queue`
#[derive(Args, Debug)]
pub(super) struct QueueArgs {
    #[command(flatten)]
    connection: Connection,
    #[command(subcommand)]
    verb: QueueVerb,
}

/// Where the queue is and who asks.
#[derive(Args, Clone, Debug)]
struct Connection {
    /// A server, nats://HOST:PORT or tls://HOST:PORT; several with commas or one by one; also $VIFD_QUEUE
    #[arg(long = "server", global = true, help_heading = CONNECTION, value_name = "URL", value_delimiter = ',')]
    servers: Vec<String>,
    /// A .creds file as nsc writes it, mode 0600
    #[arg(long, global = true, help_heading = CONNECTION, value_name = "FILE")]
    credentials: Option<PathBuf>,
    /// Certificates of the authorities that may have signed the server's, PEM; the system's when left out
    #[arg(long, global = true, help_heading = CONNECTION, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Our certificate, PEM; with --key
    #[arg(long, global = true, help_heading = CONNECTION, value_name = "FILE")]
    cert: Option<PathBuf>,
    /// The key of our certificate, PEM, mode 0600; with --cert
    #[arg(long, global = true, help_heading = CONNECTION, value_name = "FILE")]
    key: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum QueueVerb {
    /// Write records for a host
    #[command(after_help = "Examples:
  vifd queue put compute-1 alice.json               write it and come back when the queue has it
  vifd queue put compute-1 *.json --wait            wait until the host tells that every VIF is ready
  vifd queue put compute-1 alice.json --wait=plugged --timeout 60s
                                                    wait until vifd has done its part there
  vifd queue put compute-1 alice.json --revision 41 only if nobody else wrote it since `vifd queue get` said 41
  generate | vifd queue put compute-1 -             a record from standard input

All files are checked before the first is written; os-vif objects are taken as they are. A wait ends with what the \
host tells of this record: raise `generation` with every change, so that it can be told from the one before.")]
    Put(Put),
    /// Delete records of a host: it unplugs these VIFs
    #[command(after_help = "Example:
  vifd queue delete compute-1 dc065497-3c8d-4f44-8fb4-e1d33c16a536 --wait")]
    Delete(Delete),
    /// Show records and what the host tells of them
    #[command(after_help = "Examples:
  vifd queue get compute-1                          what the host has, a line for each VIF
  vifd queue get compute-1 dc065497-3c8d-4f44-8fb4-e1d33c16a536 -o yaml
                                                    one, with its record, its status and its revision")]
    Get {
        /// Name of the host
        #[arg(value_name = "HOST", value_parser = host)]
        host: HostToken,
        /// Id of a VIF; all of the host when left out
        #[arg(value_name = "ID", value_parser = whole_id)]
        vif: Option<VifId>,
    },
    /// Go on with every change of records and of what hosts tell, until interrupted
    #[command(after_help = "Examples:
  vifd queue watch                                  all hosts: what there is, and then a line for every change
  vifd queue watch compute-1 -o json                one host, one JSON object per line")]
    Watch {
        /// Name of the host; all when left out
        #[arg(value_name = "HOST", value_parser = host)]
        host: Option<HostToken>,
    },
    /// Delete all records of a host and wait until it has unplugged them
    #[command(after_help = "Examples:
  vifd queue drain compute-1                        says how many there are and asks
  vifd queue drain compute-1 --yes --timeout 5m     for scripts

An agent that holds back many removals at once (max_removals) waits for `vifd confirm-removals` on that host.")]
    Drain(Drain),
    /// List hosts, how their VIFs are, and when they were heard of
    #[command(after_help = "Examples:
  vifd queue status                                 those that need somebody first
  vifd queue status -o json                         for programs

The exit code is 1 when a host is silent, has VIFs that failed or are in conflict, or tells of a problem.")]
    Status,
}

#[derive(Args, Debug)]
struct Put {
    /// Name of the host
    #[arg(value_name = "HOST", value_parser = host)]
    host: HostToken,
    /// Records; - is standard input
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Write only if the record is of this revision; 0 means that there never was one
    #[arg(long, value_name = "N")]
    revision: Option<u64>,
    /// Wait until the host tells that each VIF is so
    #[arg(long, value_enum, value_name = "STATE", num_args = 0..=1, require_equals = true, default_missing_value = "ready")]
    wait: Option<Wait>,
    /// How long to wait for all, e.g. 90s, 2m, or bare seconds; 600s at most
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = parse_time)]
    timeout: Duration,
}

#[derive(Args, Debug)]
struct Delete {
    /// Name of the host
    #[arg(value_name = "HOST", value_parser = host)]
    host: HostToken,
    /// Ids of the VIFs
    #[arg(required = true, value_name = "ID", value_parser = whole_id)]
    vifs: Vec<VifId>,
    /// Wait until the host tells nothing of them any more
    #[arg(long)]
    wait: bool,
    /// How long to wait for all, e.g. 90s, 2m, or bare seconds; 600s at most
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = parse_time)]
    timeout: Duration,
}

#[derive(Args, Debug)]
struct Drain {
    /// Name of the host
    #[arg(value_name = "HOST", value_parser = host)]
    host: HostToken,
    /// Do it without asking
    #[arg(long)]
    yes: bool,
    /// How long to wait for all, e.g. 90s, 2m, or bare seconds; 600s at most
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = parse_time)]
    timeout: Duration,
}

fn host(word: &str) -> Result<HostToken, String> {
    HostToken::of(word).map_err(|error| error.to_string())
}

fn whole_id(word: &str) -> Result<VifId, String> {
    word.parse().map_err(|_| "this wants the whole id (`vifd queue get HOST` shows it)".to_owned())
}

/// Does what the command line says.
pub(super) async fn queue(args: QueueArgs, output: &Output) -> Result<(), Failure> {
    let QueueArgs { connection, verb } = args;
    if let QueueVerb::Put(Put { revision: Some(_), files, .. }) = &verb
        && files.len() > 1
    {
        return Err(usage(output, "revision", "--revision is about one record, and these are several files"));
    }
    let named = std::env::var("VIFD_QUEUE").unwrap_or_default();
    let options = connection.options(&named).map_err(|(field, words)| usage(output, field, words))?;
    let queue = connect(options).await?;
    match verb {
        QueueVerb::Put(put) => writes::put(&queue, put, output).await,
        QueueVerb::Delete(delete) => writes::delete(&queue, delete, output).await,
        QueueVerb::Drain(drain) => writes::drain(&queue, drain, output).await,
        QueueVerb::Get { host, vif } => fleet::get(&queue, &host, vif, output).await,
        QueueVerb::Watch { host } => fleet::watch(&queue, host.as_ref(), output).await,
        QueueVerb::Status => fleet::status(&queue, output).await,
    }
}

fn usage(output: &Output, field: &str, words: &str) -> Failure {
    output.error("usage", field, words);
    Failure::Said(USAGE)
}

impl Connection {
    /// `named`: the servers that the environment names. An error is the option to blame and a sentence.
    fn options(self, named: &str) -> Result<Options, (&'static str, &'static str)> {
        let mut servers = self.servers;
        if servers.is_empty() {
            servers = named.split([',', ' ']).filter(|word| !word.is_empty()).map(str::to_owned).collect();
        }
        if servers.is_empty() {
            return Err(("server", "where the queue is has to be said: --server nats://HOST:4222, or $VIFD_QUEUE"));
        }
        let certificate = match (self.cert, self.key) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            (Some(_), None) => return Err(("key", "--cert wants --key beside it")),
            (None, Some(_)) => return Err(("cert", "--key wants --cert beside it")),
        };
        Ok(Options {
            servers,
            credentials: self.credentials.map_or(Credentials::None, Credentials::File),
            ca: self.ca,
            certificate,
            name: "vifd queue".into(),
            inbox: "_INBOX".into(),
        })
    }
}

async fn connect(options: Options) -> Result<Queue, Failure> {
    let queue = Queue::connect(options).await?;
    if let Ok(Some(_)) = timeout(CONNECT, queue.up()).await {
        return Ok(queue);
    }
    let detail = queue.session().borrow().detail.clone();
    Err(Failure::Unreachable(format!("the queue cannot be reached: {detail}")))
}

/// Whether the queue is not there, as opposed to one that says no.
pub(super) fn is_unreachable(error: &QueueError) -> bool {
    // A server tells what it does not permit beside the answer, which then never comes.
    let refused = |hint: &str| hint.to_ascii_lowercase().contains("permissions violation");
    matches!(error, QueueError::NoAnswer { hint, .. } if !hint.as_deref().is_some_and(refused))
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, Parser};

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        args: QueueArgs,
    }

    fn parse(words: &str) -> Result<QueueArgs, clap::Error> {
        Line::try_parse_from(words.split(' ')).map(|line| line.args)
    }

    #[test]
    fn every_verb_is_explained_and_in_the_reference() {
        let reference = include_str!("../../../docs/cli.md");
        for verb in Line::command().get_subcommands() {
            let name = verb.get_name();
            let more = verb.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(more.contains(&format!("\n  vifd queue {name}")), "{name} has no example");
            assert!(reference.contains(&format!("`vifd queue {name}")), "docs/cli.md: {name}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_a_usage_error() {
        for words in [
            "queue",
            "queue put",
            "queue put h",
            "queue put h a --wait=gone",
            "queue put h a --revision x",
            "queue put h a --timeout 601s",
            "queue delete h",
            "queue delete h tap1",
            "queue get",
            "queue get h tap1",
            "queue drain",
            "queue status h",
        ] {
            assert_eq!(parse(words).unwrap_err().exit_code(), 2, "{words}");
        }
        let long = parse(&format!("queue drain {}", "h".repeat(254))).unwrap_err().to_string();
        assert!(long.contains("253 octets"), "{long}");
    }

    #[test]
    fn the_connection_is_said_before_or_behind_the_verb_and_options_come_before_the_environment() {
        let options = |words: &str, named: &str| parse(words).unwrap().connection.options(named);
        let servers = |words: &str, named: &str| options(words, named).unwrap().servers;
        assert_eq!(servers("queue --server nats://a,nats://b status", "nats://c"), ["nats://a", "nats://b"]);
        assert_eq!(servers("queue status --server nats://a --server nats://b", ""), ["nats://a", "nats://b"]);
        assert_eq!(servers("queue status", "nats://c, tls://d"), ["nats://c", "tls://d"]);
        assert_eq!(options("queue status", " ").unwrap_err().0, "server");
        assert_eq!(options("queue status --server a --cert /c", "").unwrap_err().0, "key");
        assert_eq!(options("queue status --server a --key /k", "").unwrap_err().0, "cert");
        let all = options("queue status --server a --cert /c --key /k --credentials /s", "").unwrap();
        assert_eq!(all.certificate, Some(("/c".into(), "/k".into())));
        assert_eq!(all.credentials, Credentials::File("/s".into()));
    }

    #[test]
    fn a_refusal_is_no_absence() {
        let silent = |hint: Option<&str>| QueueError::NoAnswer { attempt: "x".into(), hint: hint.map(str::to_owned) };
        assert!(is_unreachable(&silent(None)));
        assert!(is_unreachable(&silent(Some("nats://a, reconnecting: connection refused"))));
        assert!(!is_unreachable(&silent(Some("Permissions Violation for Publish to \"$KV.vifs.a.x\""))));
        assert!(!is_unreachable(&QueueError::NoBucket("vifs".into())));
    }
}
