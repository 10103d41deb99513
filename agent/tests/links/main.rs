//! The links backend on a real kernel. Every test runs in a network namespace of its own, which goes with the
//! test's thread; nothing is seen of it outside. It takes root, `ip` and `/dev/net/tun`: without them the tests
//! fail and say so.

// The functions that the tests share are tests too.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::future::Future;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use nix::sched::{CloneFlags, unshare};
use tokio::sync::watch;
use vifd::backend::links::{LinkChange, LinkOp, Links, LinksConfig, NewKind, NewLink};
use vifd::backend::{Attributed, Backend, Outcome, Party};
use vifd::model::{Link, LinkState, View};

mod devices;
mod following;
mod kinds;
mod sockets;
mod taps;
mod uplinks;

/// For the kernel to tell us of a change: milliseconds on an idle machine.
const PATIENCE: Duration = Duration::from_secs(10);

const MARK: &str = "vifd/1 test dc065497-3c8d-4f44-8fb4-e1d33c16a536";

/// Runs `body` on a thread with a network namespace of its own.
fn in_namespace<F: Future<Output = ()>>(body: impl FnOnce() -> F + Send + 'static) {
    assert!(nix::unistd::geteuid().is_root(), "needs root: it makes a network namespace");
    assert!(Path::new("/dev/net/tun").exists(), "needs /dev/net/tun");
    let thread = std::thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace of its own");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(body());
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

fn ip(arguments: &str) {
    let output = Command::new("ip").args(arguments.split(' ')).output().expect("needs ip (iproute2)");
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

fn tap(name: &str) -> LinkOp {
    LinkOp::CreateLink { link: Box::new(fresh(name)), kind: NewKind::Tap { multi_queue: false } }
}

/// A link that is up, with our mark.
fn fresh(name: &str) -> NewLink {
    NewLink {
        name: name.into(),
        mac: None,
        mtu: Some(1500),
        up: true,
        promiscuous: false,
        master: None,
        alias: MARK.into(),
    }
}

fn change(link: &Link, to: LinkChange) -> LinkOp {
    LinkOp::ChangeLink { index: link.index, name: link.name.clone(), change: Box::new(to) }
}

fn delete(link: &Link) -> LinkOp {
    let alias = link.alias.clone().unwrap_or_default();
    LinkOp::DeleteLink { index: link.index, name: link.name.clone(), alias }
}

async fn apply(links: &mut Links, ops: impl IntoIterator<Item = LinkOp>) -> Vec<Outcome> {
    links.apply(ops.into_iter().map(|op| Attributed { party: Party::All, op }).collect()).await
}

/// Waits until the view shows what is wanted.
async fn shown(view: &mut watch::Receiver<View<LinkState>>, what: &str, test: impl Fn(&LinkState) -> bool) {
    let shown = tokio::time::timeout(PATIENCE, view.wait_for(|view| view.ready().is_some_and(&test))).await;
    let shown = shown.map(|view| drop(view.unwrap()));
    assert!(shown.is_ok(), "not shown in {PATIENCE:?}: {what}: {:#?}", view.borrow());
}

/// A link as the view has it now.
fn seen(links: &Links, name: &str) -> Option<Link> {
    links.observe().borrow().ready()?.links.get(name).map(|link| Link::clone(link))
}

async fn ready(config: LinksConfig) -> (Links, watch::Receiver<View<LinkState>>) {
    let links = Links::spawn(config).unwrap();
    let mut view = links.observe();
    shown(&mut view, "the first view", |state| state.links.contains_key("lo")).await;
    (links, view)
}
