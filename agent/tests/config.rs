//! The configuration file: defaults, refusals, reloads, and that the documentation and the shipped file say
//! what the types say.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rstest::rstest;
use toml::Value;
use vifd::config::{Config, ConfigError, DEFAULT_PATH, Listen, Mode, Resync};
use vifd::model::DeviceAccess;
use vifd::plan::MaxRemovals;

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(text, Path::new("vifd.toml"))
}

/// A configuration in which every list has an element, so that every key is there.
fn full() -> Config {
    let text = "[[bridge]]\nname = 'br-int'\nuplinks = [{ port = 'eth1' }]\n[[nic]]\ndevice = 'pci/0000:03:00.0'\nvfs = 4\ninline_mode = 'none'\nencap = true\n";
    parse(text).unwrap()
}

/// Every key, as `agent.id` or `bridge.uplinks.port`, with its value.
fn keys(path: &str, value: &Value, found: &mut Vec<(String, Value)>) {
    match value {
        Value::Table(table) => {
            for (key, value) in table {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                if !matches!(value, Value::Table(_)) && path.contains('.') {
                    found.push((path.clone(), value.clone()));
                }
                keys(&path, value, found);
            }
        }
        Value::Array(list) => list.iter().for_each(|value| keys(path, value, found)),
        _ => {}
    }
}

#[test]
fn the_shipped_file_is_the_defaults() {
    let shipped = Config::load(&repository("deploy/vifd.toml")).unwrap();
    assert_eq!(shipped, Config::default());
    assert_eq!(parse("").unwrap(), Config::default());
}

#[test]
fn the_shipped_file_has_every_key() {
    let text = fs::read_to_string(repository("deploy/vifd.toml")).unwrap();
    // The examples are commented out; with the hash signs gone they have to hold too.
    let examples: String = text
        .split_once("# [[bridge]]")
        .map(|(_, examples)| format!("# [[bridge]]{examples}"))
        .unwrap()
        .lines()
        .map(|line| format!("{}\n", line.trim_start_matches('#').trim_start()))
        .collect();
    let with_examples = parse(&examples).unwrap();
    assert_eq!((with_examples.bridge.len(), with_examples.nic.len()), (1, 1));
    let (mut wanted, mut shipped) = (Vec::new(), Vec::new());
    keys("", &Value::try_from(full()).unwrap(), &mut wanted);
    keys("", &text.parse::<toml::Table>().unwrap().into(), &mut shipped);
    keys("", &examples.parse::<toml::Table>().unwrap().into(), &mut shipped);
    for (key, _) in wanted {
        assert!(shipped.iter().any(|(known, _)| *known == key), "deploy/vifd.toml does not have {key}");
    }
}

#[test]
fn the_documentation_has_every_key_with_its_default() {
    let text = fs::read_to_string(repository("docs/configuration.md")).unwrap();
    let (mut wanted, mut defaults) = (Vec::new(), Vec::new());
    keys("", &Value::try_from(full()).unwrap(), &mut wanted);
    keys("", &Value::try_from(Config::default()).unwrap(), &mut defaults);
    for (key, _) in &wanted {
        let row = text.lines().find(|line| line.starts_with(&format!("| `{key}` |")));
        let row = row.unwrap_or_else(|| panic!("docs/configuration.md does not have {key}"));
        if let Some((_, default)) = defaults.iter().find(|(known, _)| known == key) {
            assert!(row.contains(&format!("| `{default}` |")), "{row} does not have the default {default}");
        }
    }
    let documented = text.lines().filter(|line| line.starts_with("| `") && line.contains('.')).count();
    assert_eq!(documented, wanted.len(), "docs/configuration.md has a key that there is not");
}

/// What the documentation says about restarts is what the code says.
#[test]
fn the_documentation_tells_live_keys_from_the_others() {
    let text = fs::read_to_string(repository("docs/configuration.md")).unwrap();
    let changed = parse(
        "[agent]\nid='b'\nhost='h'\nuser='u'\nmode='observe'\nresync='1m'\nadopt='os-vif'\nmax_removals=3\nstate_dir='/s'\n\
         [ovsdb]\nendpoint='tcp:[::1]:6640'\nkey='/k'\ncert='/c'\nca='/a'\nrundir='/r'\n[source]\npath='/p'\n\
         [api]\nsocket='/a.sock'\nmode='0600'\ngroup='g'\n[metrics]\nlisten=''\n\
         [defaults]\nmtu=9000\nqos_type=''\nisolate=true\nper_port_bridge=true\n\
         [vhostuser]\ndir='/v'\nowner='o'\ngroup='g'\nmode='0700'\nselinux_label='l'\n[macvtap]\ndir='/d'\nowner='o'\ngroup='g'\nmode='0660'\n\
         [lldpad]\npid_file='/l'\nask_every='1m'\n[nested_dpdk]\ndir='/x'\n[openflow]\ngroups='1-9'\nmeters='1-9'\nzones='1-9'\n[[bridge]]\nname='br'\n[[nic]]\ndevice='pci/0000:03:00.0'\n[log]\nlevel='debug'\nformat='json'\n",
    )
    .unwrap();
    let restart = Config::diff_needs_restart(&Config::default(), &changed);
    for line in text.lines().filter(|line| line.starts_with("| `") && line.contains('.')) {
        let cells: Vec<_> = line.split('|').map(str::trim).collect();
        let key = cells[1].trim_matches('`');
        // Of a key with one possible value nothing can differ.
        let expected = if key == "source.kind" || restart.contains(&key) { "restart" } else { "live" };
        assert_eq!(cells[3], expected, "{key}");
    }
    assert_eq!(Config::diff_needs_restart(&changed, &changed), Vec::<&str>::new());
}

#[test]
fn what_is_written_is_read_back() {
    for config in [Config::default(), full()] {
        let text = toml::to_string(&config).unwrap();
        assert_eq!(parse(&text).unwrap(), config, "{text}");
    }
}

#[test]
fn values_are_understood() {
    let config = parse(
        "[agent]\nmode = 'observe'\nresync = 'off'\nmax_removals = 20\n[offload]\nlook_every = '0'\n\
         [ovsdb]\nendpoint = ['tcp:10.0.0.1:6640', 'unix:/tmp/ovs/db.sock']\n\
         [metrics]\nlisten = ''\n[vhostuser]\nowner = '107'\nmode = '2775'\n\
         [macvtap]\nowner = 'root'\nmode = '0660'\n",
    )
    .unwrap();
    assert_eq!(config.agent.mode, Mode::Observe);
    assert_eq!(config.agent.resync, Resync(None));
    assert_eq!(config.offload.look_every.0, None);
    assert_eq!(config.agent.max_removals, MaxRemovals::Count(20));
    let endpoints: Vec<_> = config.ovsdb.endpoint.0.iter().map(ToString::to_string).collect();
    assert_eq!(endpoints, ["tcp:10.0.0.1:6640", "unix:/tmp/ovs/db.sock"]);
    assert_eq!(config.rundir(), Path::new("/tmp/ovs"));
    assert_eq!(config.metrics.listen, Listen(None));
    assert_eq!(Config::default().agent.resync, Resync(Some(Duration::from_secs(600))));
    assert_eq!(Config::default().rundir(), Path::new("/run/openvswitch"));
    assert!(!Config::default().host().is_empty());

    let settings = config.settings().unwrap();
    assert_eq!(settings.socket_owner.uid, 107);
    assert_eq!(settings.socket_owner.gid, u32::MAX, "no group given: left as it is");
    assert_eq!(settings.socket_owner.mode, 0o2775);
    assert_eq!(settings.device_access, DeviceAccess { uid: Some(0), gid: None, mode: Some(0o660) });
    assert!(Config::default().settings().unwrap().device_access.wants_nothing());
    let root = parse("[vhostuser]\nowner = 'root'\n").unwrap().settings().unwrap();
    assert_eq!(root.socket_owner.uid, 0);
}

#[test]
fn an_unknown_owner_is_named() {
    let config = parse("[vhostuser]\ngroup = 'no-such-group-here'\n").unwrap();
    let error = config.settings().unwrap_err().to_string();
    assert_eq!(error, "vhostuser.group: \"no-such-group-here\" is not known on this host");
    let config = parse("[macvtap]\nowner = 'no-such-user-here'\n").unwrap();
    let error = config.settings().unwrap_err().to_string();
    assert_eq!(error, "macvtap.owner: \"no-such-user-here\" is not known on this host");
}

#[rstest]
#[case::unknown_table("[agents]\n", "", 1, "unknown field `agents`")]
#[case::unknown_key("[agent]\nmodus = 'x'\n", "agent", 2, "unknown field `modus`, expected one of `id`")]
#[case::no_toml("[agent]\nid = \n", "", 2, "")]
#[case::twice("[agent]\nid = 'a'\nid = 'b'\n", "", 3, "duplicate key")]
#[case::wrong_type("[agent]\nhost = 5\n", "agent.host", 2, "invalid type: integer `5`, expected a string")]
#[case::id("[agent]\nid = 'my agent'\n", "agent.id", 2, "\"my agent\" is not 1 to 63 letters")]
#[case::id_empty("[agent]\nid = ''\n", "agent.id", 2, "is not 1 to 63")]
#[case::id_long(
    "[agent]\nid = 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa'\n",
    "agent.id",
    2,
    "63"
)]
#[case::mode("[agent]\n\n\nmode = 'enforced'\n", "agent.mode", 4, "expected `observe` or `enforce`")]
#[case::resync("[agent]\nresync = 'often'\n", "agent.resync", 2, "neither a time")]
#[case::look_every("[offload]\nlook_every = 'now'\n", "offload.look_every", 2, "nor \"0\" for never")]
#[case::look_every_short("[offload]\nlook_every = '10ms'\n", "offload.look_every", 2, "shorter than one second")]
#[case::resync_short("[agent]\nresync = '1ms'\n", "agent.resync", 2, "shorter than one second")]
#[case::adopt("[agent]\nadopt = 'always'\n", "agent.adopt", 2, "expected `never` or `os-vif`")]
#[case::removals("[agent]\nmax_removals = '101%'\n", "agent.max_removals", 2, "expected a share")]
#[case::removals_sign("[agent]\nmax_removals = -1\n", "agent.max_removals", 2, "expected a share")]
#[case::removals_bare("[agent]\nmax_removals = '10'\n", "agent.max_removals", 2, "expected a share")]
#[case::state("[agent]\nstate_dir = 'state'\n", "agent.state_dir", 2, "not an absolute path")]
#[case::endpoint("[ovsdb]\nendpoint = 'udp:1.2.3.4:5'\n", "ovsdb.endpoint", 2, "expected unix:, tcp: or ssl:")]
#[case::relative("[ovsdb]\nendpoint = 'unix:db.sock'\n", "ovsdb.endpoint", 2, "no absolute path")]
#[case::endpoints("[ovsdb]\nendpoint = []\n", "ovsdb.endpoint", 2, "no endpoint")]
#[case::key("[ovsdb]\nkey = 'k.pem'\n", "ovsdb.key", 2, "not an absolute path")]
#[case::tls("[ovsdb]\nendpoint = 'ssl:h:6640'\nkey = '/k'\nca = '/c'\n", "ovsdb.cert", 0, "an ssl: endpoint needs")]
#[case::nats("[source]\nkind = 'nats'\n", "source.kind", 2, "\"nats\" is not supported by this version")]
#[case::kind("[source]\nkind = 'file'\n", "source.kind", 2, "\"file\" is not \"dir\"")]
#[case::api_mode("[api]\nmode = '660x'\n", "api.mode", 2, "not a file mode")]
#[case::listen("[metrics]\nlisten = 'localhost'\n", "metrics.listen", 2, "not an address with a port")]
#[case::mtu("[defaults]\nmtu = 67\n", "defaults.mtu", 2, "not an MTU")]
#[case::qos("[defaults]\nqos_type = 'htb'\n", "defaults.qos_type", 2, "is not one of linux-htb")]
#[case::macvtap_mode("[macvtap]\nmode = '2660'\n", "macvtap.mode", 2, "not a device's mode")]
#[case::macvtap_dir("[macvtap]\ndir = 'dev'\n", "macvtap.dir", 2, "not an absolute path")]
#[case::vhost_mode("[vhostuser]\nmode = '0999'\n", "vhostuser.mode", 2, "not a file mode")]
#[case::bridge_name("[[bridge]]\nname = 'a/b'\n", "bridge[0].name", 2, "has '/' in it")]
#[case::flows("[[bridge]]\nname = 'b'\nflows = 'ovn'\n", "bridge[0].flows", 3, "`ovn`")]
#[case::two_uplinks(
    "[[bridge]]\nname = 'b'\nuplinks = [{ port = 'e' }, { port = 'f' }]\n",
    "bridge[0].uplinks[1].networks",
    0,
    "one uplink"
)]
#[case::range("[openflow]\ngroups = '9-1'\n", "openflow.groups", 2, "is not a range between 1 and")]
#[case::range_of_words("[openflow]\nmeters = 'all'\n", "openflow.meters", 2, "such as \"1-32767\"")]
#[case::zones("[openflow]\nzones = '1-65536'\n", "openflow.zones", 2, "between 1 and 65535")]
#[case::uplink("[[bridge]]\nname = 'b'\nuplinks = [{ ports = 'e' }]\n", "bridge[0].uplinks[0]", 3, "`ports`")]
#[case::two_bridges("[[bridge]]\nname = 'b'\n[[bridge]]\nname = 'b'\n", "bridge[1].name", 0, "earlier bridge")]
#[case::nic("[[nic]]\ndevice = 'eth0'\n", "nic[0].device", 2, "not a devlink handle")]
#[case::switchdev(
    "[[nic]]\ndevice = 'pci/0000:03:00.0'\neswitch = 'legacy'\n",
    "nic[0].eswitch",
    3,
    "neither \"keep\" nor \"switchdev\""
)]
#[case::inline_mode(
    "[[nic]]\ndevice = 'pci/0000:03:00.0'\ninline_mode = 'all'\n",
    "nic[0].inline_mode",
    3,
    "is none of"
)]
#[case::level("[log]\nlevel = 'loud'\n", "log.level", 2, "\"loud\" is neither")]
#[case::format("[log]\nformat = 'xml'\n", "log.format", 2, "expected `text` or `json`")]
fn wrong_files_are_refused(#[case] text: &str, #[case] key: &str, #[case] line: usize, #[case] reason: &str) {
    let error = parse(text).unwrap_err();
    let ConfigError::Wrong { key: found, line: at, reason: why, .. } = &error else { panic!("{error:?}") };
    assert!(found.starts_with(key), "{found:?} instead of {key:?}: {error}");
    assert_eq!(at.as_ref().map_or(0, |line| line.number), line, "{error}");
    assert!(why.contains(reason), "{error}");
}

#[test]
fn an_error_shows_the_line() {
    let error = parse("[agent]\n# ä\n\tmode = \"enforced\"\n").unwrap_err();
    assert_eq!(
        error.to_string(),
        "vifd.toml:3: agent.mode: unknown variant `enforced`, expected `observe` or `enforce`\n  |\n3 | \tmode = \"enforced\"\n  | \t       ^^^^^^^^^^"
    );
}

#[test]
fn only_the_default_file_may_be_missing() {
    let here = tempfile::tempdir().unwrap();
    let error = Config::load(&here.path().join("vifd.toml")).unwrap_err();
    assert!(matches!(error, ConfigError::Unreadable { .. }), "{error}");
    if !Path::new(DEFAULT_PATH).exists() {
        assert_eq!(Config::load(Path::new(DEFAULT_PATH)).unwrap(), Config::default());
    }
}
