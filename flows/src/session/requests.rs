//! The requests that a handle has by name. They are sent and answered as all others: see [`Handle::call`],
//! [`Handle::multipart`], [`Handle::sequence`].

use bytes::Bytes;

use super::watch::FlowWatch;
use super::{CallError, Command, Handle, Refusal};
use crate::message::{
    Aggregate, Description, Features, FlowsRequest, FragmentHandling, GroupFeatures, GroupStats, Kind, Message,
    MeterFeatures, MeterStats, MultipartRequest, PacketOut, Port, PortStats, Role, RoleRequest, SwitchConfig,
    TableStats, TlvTable, flush_zone,
};
use crate::{DecodeError, FlowStats, Group, Meter, MeterMod, PortNo};

/// `OFPG_ALL`
const ALL_GROUPS: u32 = 0xffff_fffc;
/// `OFPM_ALL`
const ALL_METERS: u32 = 0xffff_ffff;

/// Each fails as [`CallError`] says.
#[allow(clippy::missing_errors_doc, reason = "said once, above")]
impl Handle {
    /// What the switch is, asked anew.
    pub async fn features(&self) -> Result<Features, CallError> {
        match self.call(Message::FeaturesRequest, Kind::FEATURES_REPLY).await? {
            Message::FeaturesReply(features) => Ok(features),
            other => Err(CallError::Unexpected(other.kind())),
        }
    }

    /// Waits until the switch has executed all that was sent before.
    pub async fn barrier(&self) -> Result<(), CallError> {
        self.call(Message::BarrierRequest, Kind::BARRIER_REPLY).await.map(drop)
    }

    /// The switch's configuration.
    pub async fn switch_config(&self) -> Result<SwitchConfig, CallError> {
        match self.call(Message::GetConfigRequest, Kind::GET_CONFIG_REPLY).await? {
            Message::GetConfigReply(config) => Ok(config),
            other => Err(CallError::Unexpected(other.kind())),
        }
    }

    /// Has the switch treat fragments like this, where it does not yet, and answers what it does now: Open vSwitch ignores
    /// what it cannot, and says so in its log alone. It is of the whole switch, for everybody, and forgotten when
    /// ovs-vswitchd ends.
    pub async fn treat_fragments(&self, how: FragmentHandling) -> Result<FragmentHandling, CallError> {
        let config = self.switch_config().await?;
        if config.fragments() == how {
            return Ok(how);
        }
        let wanted = SwitchConfig { flags: config.flags & !3 | how as u16, ..config };
        let refusals = self.sequence(vec![Message::SetConfig(wanted)]).await?;
        if let Some(super::RefusalError::Switch(error)) = refusals.into_iter().next().map(|refusal| refusal.error) {
            return Err(CallError::Refused(error));
        }
        Ok(self.switch_config().await?.fragments())
    }

    /// Takes a role; [`Role::NoChange`] only asks. `generation` counts elections: a smaller one than any before is refused.
    pub async fn role(&self, role: Role, generation: u64) -> Result<RoleRequest, CallError> {
        match self.call(Message::RoleRequest(RoleRequest { role, generation }), Kind::ROLE_REPLY).await? {
            Message::RoleReply(role) => Ok(role),
            other => Err(CallError::Unexpected(other.kind())),
        }
    }

    /// Sends a packet. A refusal is [`CallError::Refused`].
    pub async fn packet_out(&self, packet: PacketOut) -> Result<(), CallError> {
        let refusals = self.sequence(vec![Message::PacketOut(packet)]).await?;
        match refusals.into_iter().next().map(|refusal| refusal.error) {
            None => Ok(()),
            Some(super::RefusalError::Switch(error)) => Err(CallError::Refused(error)),
            Some(super::RefusalError::TooLong(error)) => Err(CallError::TooLong(error)),
        }
    }

    /// Changes meters, one after the other and each for itself; gives those that were refused.
    pub async fn meters(&self, changes: Vec<MeterMod>) -> Result<Vec<Refusal>, CallError> {
        self.sequence(changes.into_iter().map(Message::MeterMod).collect()).await
    }

    /// Has the datapath forget the connections of these zones; gives those that were refused.
    pub async fn flush_zones(&self, zones: Vec<u16>) -> Result<Vec<Refusal>, CallError> {
        self.sequence(zones.into_iter().map(flush_zone).collect()).await
    }

    /// What the switch says of itself.
    pub async fn description(&self) -> Result<Description, CallError> {
        self.one(MultipartRequest::Description, Description::decode).await
    }

    /// All flows.
    pub async fn dump_flows(&self) -> Result<Vec<FlowStats>, CallError> {
        self.flows(FlowsRequest::default()).await
    }

    /// Some flows.
    pub async fn flows(&self, request: FlowsRequest) -> Result<Vec<FlowStats>, CallError> {
        self.all(MultipartRequest::Flows(request), |mut part, flows| {
            while !part.is_empty() {
                flows.push(FlowStats::decode(&mut part)?);
            }
            Ok(())
        })
        .await
    }

    /// How many flows there are, and what they matched.
    pub async fn aggregate(&self, request: FlowsRequest) -> Result<Aggregate, CallError> {
        self.one(MultipartRequest::Aggregate(request), Aggregate::decode).await
    }

    /// Counters of all tables.
    pub async fn table_stats(&self) -> Result<Vec<TableStats>, CallError> {
        self.extend(MultipartRequest::Tables, TableStats::decode_all).await
    }

    /// All groups.
    pub async fn dump_groups(&self) -> Result<Vec<Group>, CallError> {
        self.all(MultipartRequest::Groups, |mut part, groups| {
            while !part.is_empty() {
                groups.push(Group::decode(&mut part)?);
            }
            Ok(())
        })
        .await
    }

    /// Counters of all groups.
    pub async fn group_stats(&self) -> Result<Vec<GroupStats>, CallError> {
        self.extend(MultipartRequest::GroupStats(ALL_GROUPS), GroupStats::decode_all).await
    }

    /// What groups there may be.
    pub async fn group_features(&self) -> Result<GroupFeatures, CallError> {
        self.one(MultipartRequest::GroupFeatures, GroupFeatures::decode).await
    }

    /// All meters.
    pub async fn dump_meters(&self) -> Result<Vec<Meter>, CallError> {
        self.all(MultipartRequest::Meters(ALL_METERS), |mut part, meters| {
            while !part.is_empty() {
                meters.push(Meter::decode(&mut part)?);
            }
            Ok(())
        })
        .await
    }

    /// Counters of all meters.
    pub async fn meter_stats(&self) -> Result<Vec<MeterStats>, CallError> {
        self.extend(MultipartRequest::MeterStats(ALL_METERS), MeterStats::decode_all).await
    }

    /// What meters there may be.
    pub async fn meter_features(&self) -> Result<MeterFeatures, CallError> {
        self.one(MultipartRequest::MeterFeatures, MeterFeatures::decode).await
    }

    /// All ports.
    pub async fn port_desc(&self) -> Result<Vec<Port>, CallError> {
        self.extend(MultipartRequest::Ports, Port::decode_all).await
    }

    /// Counters of one port, or of all with [`PortNo::ANY`].
    pub async fn port_stats(&self, port: PortNo) -> Result<Vec<PortStats>, CallError> {
        self.extend(MultipartRequest::PortStats(port), PortStats::decode_all).await
    }

    /// What tunnel options the `tun_metadata` fields stand for.
    pub async fn tlv_table(&self) -> Result<TlvTable, CallError> {
        match self.call(TlvTable::request(), Kind::EXPERIMENTER).await? {
            Message::Experimenter { subtype: TlvTable::REPLY, body, .. } => Ok(TlvTable::decode(&body)?),
            other => Err(CallError::Unexpected(other.kind())),
        }
    }

    /// Watches all flows: first come those that are there, then whatever happens to any, by whomever. One at a time for
    /// each session.
    pub async fn watch_flows(&self) -> Result<FlowWatch, CallError> {
        let (sink, watch) = FlowWatch::new(self.max_watched);
        self.command(|reply| Command::Watch { sink, reply }).await?;
        Ok(watch)
    }

    async fn all<T>(
        &self,
        request: MultipartRequest,
        read: impl Fn(&[u8], &mut Vec<T>) -> Result<(), DecodeError>,
    ) -> Result<Vec<T>, CallError> {
        let mut all = Vec::new();
        for part in self.multipart(request).await? {
            read(&part, &mut all)?;
        }
        Ok(all)
    }

    async fn extend<T>(
        &self,
        request: MultipartRequest,
        read: impl Fn(&[u8]) -> Result<Vec<T>, DecodeError>,
    ) -> Result<Vec<T>, CallError> {
        self.all(request, |part, all| {
            all.extend(read(part)?);
            Ok(())
        })
        .await
    }

    async fn one<T>(
        &self,
        request: MultipartRequest,
        read: impl Fn(&[u8]) -> Result<T, DecodeError>,
    ) -> Result<T, CallError> {
        let parts = self.multipart(request).await?;
        Ok(read(&parts.into_iter().next().unwrap_or_else(Bytes::new))?)
    }
}
