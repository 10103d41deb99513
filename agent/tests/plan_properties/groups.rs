//! Groups that rules name: who is ready while the flows of their members are refused, and who does not mind.

use std::sync::Arc;

use serde_json::json;
use vifd::backend::Party;
use vifd::model::Vif;
use vifd::plan::pipeline::{Cookie, OwnerTag};
use vifd::plan::{OPENFLOW, Plan, Settings, Verdict};

use super::host::{Host, MANAGED, managed, settings};
use super::shared::{converging, guest, id, owned, ready, want};

/// It lets those in who are in the group `web`.
fn server(number: u8) -> Arc<Vif> {
    let rules = json!({"rules": [{"direction": "ingress", "remote_group": "web"}, {"direction": "egress"}]});
    guest(&id(number), number, &json!({}), &rules)
}

/// It is in that group.
fn client(number: u8) -> Arc<Vif> {
    guest(&id(number), number, &json!({}), &json!({"groups": ["web"]}))
}

/// A managed bridge on which everything is as it is to be.
fn host(vifs: &[Arc<Vif>]) -> Host {
    let vifs = vifs.iter().map(|vif| vif.as_ref().clone()).collect();
    let mut host = Host::new(vifs, Settings { bridges: managed(true, false), ..settings() });
    ready(&host.all.iter().map(|vif| vif.id).collect::<Vec<_>>())(&host.converge());
    host
}

fn cookie(host: &Host) -> Cookie {
    Cookie::groups(OwnerTag::of(&host.settings.agent))
}

/// The switch refuses the flows of groups.
fn refuse(host: &mut Host) {
    let party = Party::Sharers(MANAGED.into(), cookie(host).0);
    host.holds.refused(party, OPENFLOW, "table full".into(), host.now);
}

fn is_held(plan: &Plan, vif: &Vif) -> bool {
    matches!(&plan.judgements[&vif.id].verdict, Verdict::Held { error, .. } if error == "table full")
}

#[test]
fn a_member_whom_nobody_lets_in_is_not_ready_and_those_whom_they_do_are() {
    let [server, seed, late, bystander] = [server(2), client(3), client(4), guest(&id(5), 5, &json!({}), &json!({}))];
    let mut host = host(&[Arc::clone(&server), Arc::clone(&seed), Arc::clone(&bystander)]);
    let before = owned(&host, cookie(&host)).len();
    refuse(&mut host);
    want(&mut host, &late);
    let plan = converging(&mut host, ready(&[seed.id, bystander.id]));
    assert_eq!(owned(&host, cookie(&host)).len(), before);
    assert!(is_held(&plan, &late), "{:?}", plan.judgements[&late.id]);
    assert_eq!(plan.judgements[&late.id].flows_ready, Some(false));
    assert!(is_held(&plan, &server), "{:?}", plan.judgements[&server.id]);
    // Some record is another: that ends the hold, and nothing is there for it yet.
    host.holds.forget_sharers(&[cookie(&host).0].into(), host.now);
    let plan = host.plan();
    assert_eq!(plan.flows.len(), 2, "{:?}", plan.flows);
    for vif in [&late, &server] {
        assert_eq!(plan.judgements[&vif.id].verdict, Verdict::Working);
    }
    host.world.apply_flows(&plan.flows);
    host.holds.succeeded(plan.flows[0].party.clone(), OPENFLOW);
    ready(&[server.id, seed.id, late.id, bystander.id])(&host.plan());
}

#[test]
fn a_member_misses_its_flows_when_somebody_deletes_them_and_nobody_else_does() {
    let [server, seed, other] = [server(2), client(3), client(4)];
    let mut host = host(&[Arc::clone(&server), Arc::clone(&seed), Arc::clone(&other)]);
    let its = |flow: &flows::Flow| flow.matching.to_string().contains("10.0.0.4");
    let flow = owned(&host, cookie(&host)).into_iter().find(its).unwrap();
    host.world.delete_flow(MANAGED, &flows::FlowId::of(&flow));
    let plan = host.plan();
    ready(&[server.id, seed.id])(&plan);
    assert_eq!(plan.judgements[&other.id].verdict, Verdict::Working);
    ready(&[server.id, seed.id, other.id])(&converging(&mut host, |_| ()));
}

#[test]
fn the_first_rule_for_a_group_is_no_concern_of_its_members_unless_it_is_refused() {
    let everywhere = json!({"groups": ["web"], "allowed_address_pairs": [{"ip": "0.0.0.0/0"}]});
    let [first, server] = [guest(&id(3), 3, &json!({}), &everywhere), server(2)];
    let mut host = host(&[Arc::clone(&first)]);
    want(&mut host, &server);
    ready(&[first.id, server.id])(&converging(&mut host, ready(&[first.id])));
    // Every address is one of its: the flow for that has none in it.
    let any = |flow: &flows::Flow| !flow.matching.to_string().contains("10.0.0.");
    let its = |flow: &&flows::Flow| any(flow) && flow.matching.exact(flows::Field::CONJ_ID).is_none();
    let flow = owned(&host, cookie(&host)).iter().find(its).cloned().unwrap();
    host.world.delete_flow(MANAGED, &flows::FlowId::of(&flow));
    assert_eq!(host.plan().judgements[&first.id].verdict, Verdict::Working);
    host.desired.vifs.remove(&server.id);
    converging(&mut host, |_| ());
    refuse(&mut host);
    want(&mut host, &server);
    assert!(is_held(&converging(&mut host, |_| ()), &first));
}
