//! What flows have counted, in terms of VIFs: read from the switches when somebody asks, at most every few seconds, and
//! one request at a time for each bridge, however many ask and however slow the switch is.
//!
//! A flow that is made anew begins at 0. What it had counted before is kept here, so that what is told of a VIF never goes
//! back while the agent runs.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use flows::FlowCount;
use flows::message::{FlowsRequest, MultipartRequest};
use flows::session::{CallError, Handle};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::Instant;

use super::{BridgeFlows, InspectError, Inspector, trace};
use crate::model::VifId;
use crate::plan::pipeline::{Cookie, Counts, OwnerTag, Place, Reason, tables};

/// What was read is good for so long.
const FRESH: Duration = Duration::from_secs(5);
/// Nobody waits longer for what is being read, but takes what was read before.
const PATIENCE: Duration = Duration::from_secs(1);
/// Parts of an answer that are read in one go.
const GO: usize = 16;
/// What two clocks may differ by in the time between two readings.
const SLOP: Duration = Duration::from_secs(1);

/// Packets and octets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    /// Packets.
    pub packets: u64,
    /// Octets of these.
    pub bytes: u64,
}

impl Count {
    fn add(&mut self, more: Count) {
        self.packets = self.packets.saturating_add(more.packets);
        self.bytes = self.bytes.saturating_add(more.bytes);
    }
}

/// `GET /v1/vifs/{id}/traffic`: what the flows of a VIF have counted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// Name of the bridge.
    pub bridge: String,
    /// When it was read.
    #[serde(default, with = "when", skip_serializing_if = "Option::is_none")]
    pub read: Option<SystemTime>,
    /// What it was let send, before its meter and its rules.
    pub egress: Count,
    /// What was sent to it, before its meter.
    pub ingress: Count,
    /// Packets of it, or to it, that were dropped, by reason; without those of which there are none.
    pub dropped: BTreeMap<String, u64>,
    /// What was dropped between the last two readings, a sentence each.
    pub lately: Vec<String>,
}

/// What metrics tell of one bridge.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BridgeCounts {
    /// Flows, groups and meters.
    pub flows: BridgeFlows,
    /// Packets dropped by flows that are of no VIF alone.
    pub dropped: BTreeMap<&'static str, u64>,
    /// When counters were read last.
    pub read: Option<SystemTime>,
}

/// What metrics tell of flows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FlowMetrics {
    /// Of every managed bridge.
    pub bridges: Vec<BridgeCounts>,
    /// Of every VIF that has flows which count.
    pub vifs: BTreeMap<VifId, Traffic>,
}

/// One flow's part of a reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Reading {
    /// Stands for the flow.
    flow: u64,
    cookie: u64,
    what: Counts,
    age: Duration,
    count: Count,
}

impl Reading {
    /// `None` for a flow whose count tells nothing.
    fn of(flow: &FlowCount<'_>) -> Option<Reading> {
        let what = tables::counts(Place { table: flow.table, priority: flow.priority })?;
        // The switch does not know.
        if flow.packet_count == u64::MAX || flow.byte_count == u64::MAX {
            return None;
        }
        let mut hasher = DefaultHasher::new();
        (flow.table, flow.priority, flow.cookie, flow.matching).hash(&mut hasher);
        let count = Count { packets: flow.packet_count, bytes: flow.byte_count };
        Some(Reading { flow: hasher.finish(), cookie: flow.cookie, what, age: flow.duration, count })
    }
}

/// The counts of one bridge.
#[derive(Debug, Default)]
struct Tally {
    /// What every flow had counted when it was last read.
    flows: HashMap<u64, Count>,
    /// The sums over all readings.
    sums: BTreeMap<u64, BTreeMap<Counts, Count>>,
    /// What the last reading added to those that were there before.
    lately: BTreeMap<(u64, Reason), u64>,
    /// How long that was after the one before.
    interval: Option<Duration>,
    read: Option<(Instant, SystemTime)>,
}

impl Tally {
    fn take(&mut self, readings: Vec<Reading>, now: Instant, today: SystemTime) {
        let interval = self.read.map(|(before, _)| now.saturating_duration_since(before));
        let before = std::mem::take(&mut self.flows);
        self.lately.clear();
        for Reading { flow, cookie, what, age, count } in readings {
            // One that is younger than the last reading was made anew since.
            let known = before.get(&flow).filter(|_| interval.is_none_or(|interval| age + SLOP >= interval));
            let new = match known {
                Some(known) if known.packets <= count.packets && known.bytes <= count.bytes => {
                    Count { packets: count.packets - known.packets, bytes: count.bytes - known.bytes }
                }
                _ => count,
            };
            self.sums.entry(cookie).or_default().entry(what).or_default().add(new);
            if let (Counts::Dropped(reason), Some(_), true) = (what, interval, new.packets > 0) {
                *self.lately.entry((cookie, reason)).or_default() += new.packets;
            }
            self.flows.insert(flow, count);
        }
        (self.interval, self.read) = (interval, Some((now, today)));
    }

    /// What is told of a VIF, or of whoever has this cookie.
    fn traffic(&self, bridge: &str, cookie: u64) -> Option<Traffic> {
        let sums = self.sums.get(&cookie)?;
        let sum = |what| sums.get(&what).copied().unwrap_or_default();
        let drops = sums.iter().filter_map(|(what, count)| match what {
            Counts::Dropped(reason) if count.packets > 0 => Some((reason.name().to_owned(), count.packets)),
            _ => None,
        });
        let seconds = self.interval.map_or(0, |interval| interval.as_secs().max(1));
        let lately = Reason::ALL.iter().filter_map(|reason| Some((reason, self.lately.get(&(cookie, *reason))?)));
        Some(Traffic {
            bridge: bridge.to_owned(),
            read: self.read.map(|(_, today)| today),
            egress: sum(Counts::FromVif),
            ingress: sum(Counts::ToVif),
            dropped: drops.collect(),
            lately: lately
                .map(|(reason, packets)| {
                    let packets = if *packets == 1 { "1 packet".to_owned() } else { format!("{packets} packets") };
                    let remedy = trace::remedy(*reason).map_or_else(String::new, |remedy| format!(" → {remedy}"));
                    format!("{packets} dropped within {seconds} s, {reason}: {}{remedy}", trace::meaning(*reason))
                })
                .collect(),
        })
    }
}

/// A bridge's counts, and whether they are being read.
#[derive(Debug, Default)]
struct Slot {
    tally: Tally,
    begun: Option<Instant>,
    /// Closed when the reading ends.
    reading: Option<watch::Receiver<()>>,
}

/// The counts of all bridges.
#[derive(Debug, Default)]
pub(super) struct Counters(Mutex<BTreeMap<String, Slot>>);

impl Counters {
    fn slots(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Slot>> {
        // What is there is whole between any two statements that can panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads what is not fresh, of these bridges alone; returns when that is done, or when it takes too long.
    async fn refresh(self: &Arc<Self>, switches: Vec<(String, Handle)>, tag: OwnerTag) {
        let now = Instant::now();
        let mut readings = Vec::new();
        {
            let mut slots = self.slots();
            for (bridge, handle) in switches {
                let slot = slots.entry(bridge.clone()).or_default();
                // A sender that is gone has read, or has died of it.
                let under_way = slot.reading.as_ref().is_some_and(|reading| reading.has_changed().is_ok());
                let fresh = slot.begun.is_some_and(|begun| now.saturating_duration_since(begun) < FRESH);
                if !under_way && !fresh {
                    let (done, reading) = watch::channel(());
                    (slot.begun, slot.reading) = (Some(now), Some(reading));
                    let counters = Arc::clone(self);
                    tokio::spawn(async move {
                        match read(&handle, tag).await {
                            Ok(readings) => {
                                let mut slots = counters.slots();
                                let slot = slots.entry(bridge).or_default();
                                slot.tally.take(readings, Instant::now(), SystemTime::now());
                            }
                            Err(error) => tracing::debug!(bridge, %error, "counters could not be read"),
                        }
                        drop(done);
                    });
                }
                readings.extend(slot.reading.clone());
            }
        }
        let all = async {
            for mut reading in readings {
                while reading.changed().await.is_ok() {}
            }
        };
        // What is late is there the next time.
        let _ = tokio::time::timeout(PATIENCE, all).await;
    }
}

/// Reads the counters of all of our flows on a switch. How long it may take is the session's to say.
async fn read(handle: &Handle, tag: OwnerTag) -> Result<Vec<Reading>, CallError> {
    let cookie = u64::from(tag.0) << 48;
    let ours = FlowsRequest { cookie, cookie_mask: 0xffff << 48, ..FlowsRequest::default() };
    let mut readings = Vec::new();
    for (number, part) in handle.multipart(MultipartRequest::Flows(ours)).await?.iter().enumerate() {
        let mut rest = &part[..];
        while !rest.is_empty() {
            readings.extend(Reading::of(&FlowCount::decode(&mut rest)?));
        }
        if number % GO == GO - 1 {
            tokio::task::yield_now().await;
        }
    }
    Ok(readings)
}

impl Inspector {
    fn switches(&self) -> Vec<(String, Handle)> {
        let bridges: Vec<String> = self.eyes.control.borrow().settings.bridges.keys().cloned().collect();
        bridges.into_iter().filter_map(|bridge| Some((bridge.clone(), (self.eyes.handles)(&bridge)?))).collect()
    }

    /// What metrics tell of flows, read anew where it is not fresh. It takes a second at most: of a switch that takes
    /// longer it is what was read last.
    pub async fn flow_metrics(&self) -> FlowMetrics {
        let tag = self.tag();
        self.counters.refresh(self.switches(), tag).await;
        let status = self.eyes.status.borrow().clone();
        let vifs: BTreeMap<u64, VifId> = status.vifs.keys().map(|id| (Cookie::vif(tag, *id).0, *id)).collect();
        let (bridges, owners) = (self.bridges(), self.owners());
        let known: BTreeSet<&str> = bridges.iter().map(|bridge| bridge.bridge.as_str()).collect();
        let mut metrics = FlowMetrics::default();
        let mut slots = self.counters.slots();
        slots.retain(|bridge, _| known.contains(bridge.as_str()));
        for flows in bridges {
            let mut dropped: BTreeMap<&'static str, u64> = BTreeMap::new();
            let slot = slots.entry(flows.bridge.clone()).or_default();
            // The series of what is gone go with it.
            slot.tally.sums.retain(|cookie, _| owners.knows(*cookie));
            for (cookie, sums) in &slot.tally.sums {
                if let Some(id) = vifs.get(cookie) {
                    let traffic = slot.tally.traffic(&flows.bridge, *cookie).unwrap_or_default();
                    metrics.vifs.insert(*id, traffic);
                    continue;
                }
                for (what, count) in sums {
                    if let Counts::Dropped(reason) = what {
                        *dropped.entry(reason.name()).or_default() += count.packets;
                    }
                }
            }
            let read = slot.tally.read.map(|(_, today)| today);
            metrics.bridges.push(BridgeCounts { flows, dropped, read });
        }
        metrics
    }

    /// What the flows of a VIF have counted.
    ///
    /// # Errors
    /// It has none, or nothing could be read.
    pub async fn traffic(&self, id: VifId) -> Result<Traffic, InspectError> {
        let bridge = {
            let status = self.eyes.status.borrow();
            let vif = status.vifs.get(&id);
            let vif = vif.ok_or_else(|| InspectError::Unknown(format!("VIF {id} is not known on this host")))?;
            let nowhere =
                || InspectError::NotOurs(format!("VIF {id} is on no Open vSwitch bridge, so it has no flows"));
            vif.facts.bridge.clone().ok_or_else(nowhere)?
        };
        self.managed(&bridge)?;
        let tag = self.tag();
        let handle = (self.eyes.handles)(&bridge);
        self.counters.refresh(handle.map(|handle| (bridge.clone(), handle)).into_iter().collect(), tag).await;
        let slots = self.counters.slots();
        let tally = slots.get(&bridge).map(|slot| &slot.tally).filter(|tally| tally.read.is_some());
        let tally = tally.ok_or_else(|| InspectError::Away {
            bridge: bridge.clone(),
            reason: format!("{}; no counters were read", self.session(&bridge).detail),
        })?;
        let nothing = || Traffic { bridge: bridge.clone(), read: tally.read.map(|(_, at)| at), ..Traffic::default() };
        Ok(tally.traffic(&bridge, Cookie::vif(tag, id).0).unwrap_or_else(nothing))
    }
}

/// RFC 3339 in UTC, to the second.
mod when {
    use std::time::SystemTime;

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(time: &Option<SystemTime>, serializer: S) -> Result<S::Ok, S::Error> {
        match time {
            Some(time) => serializer.collect_str(&humantime::format_rfc3339_seconds(*time)),
            None => serializer.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SystemTime>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        text.map(|text| humantime::parse_rfc3339(&text).map_err(D::Error::custom)).transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(flow: u64, what: Counts, age: u64, packets: u64) -> Reading {
        let count = Count { packets, bytes: packets * 98 };
        Reading { flow, cookie: 7, what, age: Duration::from_secs(age), count }
    }

    fn tally(readings: &[(u64, Vec<Reading>)]) -> Tally {
        let (mut tally, begin) = (Tally::default(), Instant::now());
        for (second, readings) in readings {
            tally.take(readings.clone(), begin + Duration::from_secs(*second), SystemTime::UNIX_EPOCH);
        }
        tally
    }

    #[tokio::test]
    async fn what_was_counted_never_goes_back() {
        use Counts::FromVif;
        let sum = |readings: &[(u64, Vec<Reading>)]| tally(readings).traffic("b", 7).unwrap_or_default().egress.packets;
        let first = (0, vec![reading(1, FromVif, 100, 5), reading(2, FromVif, 100, 3)]);
        assert_eq!(sum(std::slice::from_ref(&first)), 8);
        assert_eq!(sum(&[first.clone(), (10, vec![reading(1, FromVif, 110, 6), reading(2, FromVif, 110, 3)])]), 9);
        // Made anew, and already beyond what it had.
        assert_eq!(sum(&[first.clone(), (10, vec![reading(1, FromVif, 4, 9)])]), 17);
        // Made anew within the slop of the clocks.
        assert_eq!(sum(&[first.clone(), (10, vec![reading(1, FromVif, 9, 2)])]), 10);
        // Away for one reading, and all of it at once.
        assert_eq!(sum(&[first.clone(), (10, vec![]), (20, vec![reading(1, FromVif, 5, 2)])]), 10);
        assert_eq!(sum(&[first, (10, vec![])]), 8);
    }

    #[tokio::test]
    async fn what_rises_is_told_and_what_is_none_is_not() {
        let drop = |second, packets| {
            let dropped = |reason, packets| reading(reason as u64, Counts::Dropped(reason), 100, packets);
            (second, vec![dropped(Reason::Mac, packets), dropped(Reason::Ip, 0), dropped(Reason::Arp, 4)])
        };
        let once = tally(&[drop(0, 5)]).traffic("b", 7).unwrap();
        assert_eq!(once.dropped, BTreeMap::from([("mac_spoof".to_owned(), 5), ("arp_spoof".to_owned(), 4)]));
        assert_eq!(once.lately, [] as [String; 0], "nobody knows since when");
        let twice = tally(&[drop(0, 5), drop(10, 6)]).traffic("b", 7).unwrap();
        assert_eq!(
            twice.lately,
            [
                "1 packet dropped within 10 s, mac_spoof: Another's Ethernet source. → policy.allowed_address_pairs of its \
              record lets it use further addresses"
            ]
        );
        assert!(tally(&[drop(0, 5), drop(10, 6), drop(20, 6)]).traffic("b", 7).unwrap().lately.is_empty());
        assert_eq!(tally(&[drop(0, 5)]).traffic("b", 8), None);
    }
}
