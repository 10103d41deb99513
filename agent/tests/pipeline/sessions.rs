//! Conversations of guests with rules, packet by packet, through the switch's own connection tracking.

use std::time::Instant;

use serde_json::{Value, json};

use crate::frames::{ACK, End, SYN, arp, echo, tcp, udp};
use crate::scene::{Bridge, vif};
use crate::switch::{PATIENCE, Switch};

struct Guests {
    switch: Switch,
    marks: u32,
}

impl Guests {
    fn new(policies: &[Value]) -> Self {
        let mut guests = Guests { switch: Switch::start(policies.len() as u16), marks: 0 };
        guests.have(policies);
        guests
    }

    /// The policies of the guests from now on, the first's first.
    fn have(&mut self, policies: &[Value]) {
        let mut bridge = Bridge::default();
        for (number, policy) in (1..).zip(policies) {
            bridge.plain(&vif(number, 1, policy));
        }
        self.switch.load(&bridge);
    }

    /// Whether what a guest sends reaches another.
    fn pass(&mut self, from: u8, to: u8, frame: &[u8]) -> bool {
        let before = self.switch.sent(to.into()).len();
        self.switch.receive(from.into(), frame);
        // What is sent behind it reaches everybody, and nothing overtakes.
        self.marks += 1;
        let mark = arp(End::of(from, 0, false), self.marks);
        self.switch.receive(from.into(), &mark);
        let begin = Instant::now();
        loop {
            let sent = self.switch.sent(to.into()).split_off(before);
            if let Some(at) = sent.iter().position(|sent| *sent == mark) {
                assert!(sent[..at].len() <= 1, "more than was sent");
                assert!(sent[..at].iter().all(|sent| sent == frame), "something else than was sent");
                return at > 0;
            }
            assert!(begin.elapsed() < PATIENCE, "a gratuitous ARP request does not arrive");
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
    }
}

fn egress() -> Value {
    json!({"rules": [{"direction": "egress"}, {"direction": "egress", "ethertype": "IPv6"}]})
}

fn ingress(rule: &Value) -> Value {
    let mut whole = json!({"direction": "ingress"});
    whole.as_object_mut().unwrap().extend(rule.as_object().unwrap().clone());
    json!({"rules": [whole]})
}

fn ends(port: u16, v6: bool) -> (End, End) {
    (End::of(1, 40000, v6), End::of(2, port, v6))
}

/// A connection from guest 1 to guest 2, up to the first data.
fn connect(guests: &mut Guests, client: End, server: End) {
    assert!(guests.pass(1, 2, &tcp(client, server, SYN, 1000, 0)), "the first segment");
    assert!(guests.pass(2, 1, &tcp(server, client, SYN | ACK, 5000, 1001)), "its answer");
    assert!(guests.pass(1, 2, &tcp(client, server, ACK, 1001, 5001)), "the third");
}

#[test]
fn a_connection_passes_in_both_directions_and_no_other_does() {
    for v6 in [false, true] {
        let family = if v6 { "IPv6" } else { "IPv4" };
        let web = ingress(&json!({"protocol": "tcp", "port_min": 80, "port_max": 81, "ethertype": family}));
        let mut guests = Guests::new(&[egress(), web]);
        let (client, server) = ends(80, v6);
        connect(&mut guests, client, server);
        assert!(guests.pass(2, 1, &tcp(server, client, ACK, 5001, 1001)), "data back");

        let (client, other) = ends(82, v6);
        assert!(!guests.pass(1, 2, &tcp(client, other, SYN, 1, 0)), "a port that no rule has");
        assert!(!guests.pass(1, 2, &udp(client, server)), "a protocol that no rule has");
        let (mut back, from) = (client, server);
        back.port = 22;
        assert!(!guests.pass(2, 1, &tcp(from, back, SYN, 1, 0)), "nothing lets the server begin");
        assert!(!guests.pass(1, 2, &echo(client, server, false)), "a ping that no rule has");
    }
}

#[test]
fn a_connection_ends_with_its_rule_and_goes_on_with_it() {
    let web = ingress(&json!({"protocol": "tcp", "port_min": 80}));
    let mut guests = Guests::new(&[egress(), web.clone()]);
    let (client, server) = ends(80, false);
    connect(&mut guests, client, server);
    let (data, answer) = (tcp(client, server, ACK, 1001, 5001), tcp(server, client, ACK, 5001, 1001));

    // The same flows once more, as after a restart of either side.
    guests.have(&[egress(), web.clone()]);
    assert!(guests.pass(1, 2, &data) && guests.pass(2, 1, &answer));

    guests.have(&[egress(), json!({"rules": []})]);
    assert!(!guests.pass(1, 2, &data), "the rule is gone");
    assert!(!guests.pass(2, 1, &answer), "and with it the connection, in the other direction too");
    assert!(!guests.pass(1, 2, &data) && !guests.pass(2, 1, &answer), "for good");

    guests.have(&[egress(), web.clone()]);
    assert!(guests.pass(1, 2, &data), "the rule is back");
    assert!(guests.pass(2, 1, &answer));

    // The same at the end that began.
    guests.have(&[json!({"rules": []}), web]);
    assert!(!guests.pass(1, 2, &data));
    assert!(!guests.pass(2, 1, &answer));
}

#[test]
fn an_echo_is_answered_where_a_rule_lets_its_request_in() {
    for v6 in [false, true] {
        let (family, request) = if v6 { ("IPv6", 128) } else { ("IPv4", 8) };
        let ping = ingress(&json!({"protocol": "icmp", "port_min": request, "port_max": 0, "ethertype": family}));
        let mut guests = Guests::new(&[egress(), ping]);
        let (one, two) = ends(0, v6);
        assert!(!guests.pass(2, 1, &echo(two, one, true)), "a reply to nothing");
        assert!(guests.pass(1, 2, &echo(one, two, false)));
        assert!(guests.pass(2, 1, &echo(two, one, true)));
        assert!(!guests.pass(2, 1, &echo(two, one, false)), "the other may not ask");
    }
}

#[test]
fn a_guest_without_rules_speaks_with_one_that_has_some() {
    let mut guests = Guests::new(&[json!({}), ingress(&json!({"protocol": "udp", "port_min": 53}))]);
    let (client, server) = ends(53, false);
    assert!(!guests.pass(2, 1, &udp(server, client)), "it may not begin");
    assert!(guests.pass(1, 2, &udp(client, server)));
    assert!(guests.pass(2, 1, &udp(server, client)), "it may answer");
    assert!(!guests.pass(1, 2, &udp(client, End { port: 54, ..server })));
}

#[test]
fn a_group_is_its_members() {
    let member = |groups: &[&str]| json!({ "groups": groups });
    let mut rules = ingress(&json!({"protocol": "udp", "port_min": 53, "remote_group": "web"}));
    rules["rules"].as_array_mut().unwrap().extend([
        json!({"direction": "ingress", "protocol": "udp", "port_min": 5432, "remote_group": "db"}),
        json!({"direction": "egress", "protocol": "udp", "port_min": 7, "remote_group": "db"}),
    ]);
    let mut guests = Guests::new(&[member(&["web"]), rules.clone(), member(&["db", "web"]), member(&["other"])]);
    let to = |port| End::of(2, port, false);
    let from = |number| End::of(number, 40000, false);
    for (number, port, passes) in [
        (1, 53, true),
        (1, 5432, false),
        (3, 53, true),
        (3, 5432, true),
        (3, 5433, false),
        (4, 53, false),
        (4, 5432, false),
    ] {
        assert_eq!(guests.pass(number, 2, &udp(from(number), to(port))), passes, "{number} to {port}");
    }
    let echo_server = |number| End::of(number, 7, false);
    assert!(guests.pass(2, 3, &udp(to(40001), echo_server(3))), "to a member");
    assert!(!guests.pass(2, 1, &udp(to(40001), echo_server(1))), "to one of another group");

    // A member more, from the controller's own list.
    rules["group_members"] = json!({"web": ["10.0.0.0/30", "10.0.0.4"]});
    guests.have(&[member(&["web"]), rules, member(&["db"]), member(&["other"])]);
    assert!(guests.pass(4, 2, &udp(from(4), to(53))));
    assert!(guests.pass(3, 2, &udp(from(3), to(53))), "in a prefix of the list");
    assert!(!guests.pass(4, 2, &udp(from(4), to(5432))));
}
