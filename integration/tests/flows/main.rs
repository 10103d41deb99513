//! What a bridge does whose flows are vifd's: guests on real ovs-vswitchd that reach each other by these flows and by
//! nothing else, and send nothing but what is their own. What single packets become is proven by `agent/tests/pipeline`;
//! here are whole conversations, hosts, and daemons that come and go.

mod conversations;
mod floods;
mod hands;
mod isolation;
mod migration;
mod refusals;
mod restarts;
mod rules;
mod scene;
mod spoofs;
mod trunks;
mod untold;
