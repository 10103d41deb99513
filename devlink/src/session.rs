//! Requests to devlink. What is asked about is in files of its own (`device.rs`, `port/`, …); how a request is made is
//! `conversation.rs`'s business.

use crate::conversation::{Conversation, Reply, Request};
use crate::device::{Device, DeviceInfo, DeviceStatus, ReloadAction};
use crate::error::Error;
use crate::eswitch::{Eswitch, EswitchChange};
use crate::health::Reporter;
use crate::port::{FunctionChange, NewSubFunction, Port, PortHandle};
use crate::rate::{Rate, RateChange, RateHandle};
use crate::wire::numbers::{attr, command};
use crate::wire::{Attributes, Malformed, Writer};

/// The kernel's devlink, of the network namespace in which it was opened. Clones share one socket, on which requests are made
/// one after the other in the order in which they were asked for: who must not wait for another's change of a mode, which may take
/// seconds, opens one of their own.
///
/// A request that has begun is carried out even if its future is dropped. Every method fails with an [`Error`] that names the
/// request and has the kernel's own words.
#[derive(Clone, Debug)]
pub struct Devlink {
    conversation: Conversation,
}

/// Attributes that say what a request is about.
fn about(fill: impl FnOnce(&mut Writer)) -> Writer {
    let mut writer = Writer::default();
    fill(&mut writer);
    writer
}

fn get(command: u8, attributes: Writer) -> Request {
    Request { command, dump: false, attributes }
}

fn list(command: u8) -> Request {
    Request { command, dump: true, attributes: Writer::default() }
}

impl Devlink {
    /// Opens it in the network namespace of the calling thread.
    ///
    /// # Errors
    /// When there is no socket to be had, or the kernel has no devlink ([`Error::NoFamily`]).
    pub fn open() -> Result<Self, Error> {
        Ok(Devlink { conversation: Conversation::open("devlink")? })
    }

    /// The devices there are (`devlink dev show`). One that makes no sense is left out, and `left_out` told of it.
    ///
    /// # Errors
    /// As told at [`Devlink`].
    pub async fn devices(&self, left_out: impl FnMut(Error)) -> Result<Vec<DeviceStatus>, Error> {
        let decode = |octets: &[u8]| DeviceStatus::decode(Attributes::new(octets));
        self.readable("list devices", list(command::GET), decode, left_out).await
    }

    /// One device.
    ///
    /// # Errors
    /// As told at [`Devlink`].
    pub async fn device(&self, device: &Device) -> Result<DeviceStatus, Error> {
        let request = get(command::GET, about(|writer| device.encode(writer)));
        self.one(format!("look at {device}"), request, |octets| DeviceStatus::decode(Attributes::new(octets))).await
    }

    /// What a device's driver says of it (`devlink dev info`). It may ask the firmware, and takes its time.
    ///
    /// # Errors
    /// As told at [`Devlink`].
    pub async fn info(&self, device: &Device) -> Result<DeviceInfo, Error> {
        let request = get(command::INFO_GET, about(|writer| device.encode(writer)));
        self.one(format!("ask {device} for its versions"), request, DeviceInfo::decode).await
    }

    /// Reloads a device (`devlink dev reload`) and answers what was done: perhaps more than what was asked for. Its links, and what
    /// hangs on them, go.
    ///
    /// # Errors
    /// As told at [`Devlink`]. The device may be left half-way: see [`DeviceStatus::reload_failed`].
    pub async fn reload(&self, device: &Device, action: ReloadAction) -> Result<Vec<ReloadAction>, Error> {
        let request = get(
            command::RELOAD,
            about(|writer| {
                device.encode(writer);
                writer.u8(attr::RELOAD_ACTION, action.number());
            }),
        );
        let words = format!("reload {device} ({action})");
        let replies = self.conversation.ask(words.clone(), request).await?;
        match replies.first() {
            Some(reply) => read(words, reply, ReloadAction::performed),
            None => Ok(Vec::new()),
        }
    }

    /// How a device's switch is set.
    ///
    /// # Errors
    /// As told at [`Devlink`]; [`Error::is_unsupported`] where there is no switch.
    pub async fn eswitch(&self, device: &Device) -> Result<Eswitch, Error> {
        let request = get(command::ESWITCH_GET, about(|writer| device.encode(writer)));
        self.one(format!("look at the eswitch of {device}"), request, Eswitch::decode).await
    }

    /// Sets a device's switch, all in one request. A change of mode takes seconds on some NICs.
    ///
    /// # Errors
    /// As told at [`Devlink`]. Of several changes, the kernel makes them in the order mode, inline mode, encapsulation and stops at
    /// the first that is refused.
    pub async fn set_eswitch(&self, device: &Device, change: EswitchChange) -> Result<(), Error> {
        let request = get(
            command::ESWITCH_SET,
            about(|writer| {
                device.encode(writer);
                change.encode(writer);
            }),
        );
        self.done(format!("set the eswitch of {device}: {change}"), request).await
    }

    /// All ports of all devices (`devlink port show`). One that makes no sense is left out, and `left_out` told of it.
    ///
    /// # Errors
    /// As told at [`Devlink`].
    pub async fn ports(&self, left_out: impl FnMut(Error)) -> Result<Vec<Port>, Error> {
        let decode = |octets: &[u8]| Port::decode(Attributes::new(octets));
        self.readable("list ports", list(command::PORT_GET), decode, left_out).await
    }

    /// One port.
    ///
    /// # Errors
    /// As told at [`Devlink`].
    pub async fn port(&self, port: &PortHandle) -> Result<Port, Error> {
        let request = get(command::PORT_GET, about(|writer| port.encode(writer)));
        self.one(format!("look at port {port}"), request, |octets| Port::decode(Attributes::new(octets))).await
    }

    /// Makes the port of a new sub-function (`devlink port add`). The function is inactive then, and its link may come later.
    ///
    /// # Errors
    /// As told at [`Devlink`].
    pub async fn new_sub_function(&self, new: &NewSubFunction) -> Result<Port, Error> {
        let request = get(command::PORT_NEW, about(|writer| new.encode(writer)));
        self.one(format!("make {new}"), request, |octets| Port::decode(Attributes::new(octets))).await
    }

    /// Deletes a port (`devlink port del`); only ports that were made can be.
    ///
    /// # Errors
    /// As told at [`Devlink`].
    pub async fn delete_port(&self, port: &PortHandle) -> Result<(), Error> {
        let request = get(command::PORT_DEL, about(|writer| port.encode(writer)));
        self.done(format!("delete port {port}"), request).await
    }

    /// Changes the function behind a port (`devlink port function set`).
    ///
    /// # Errors
    /// As told at [`Devlink`]. Of several changes, some may have been made.
    pub async fn set_function(&self, port: &PortHandle, change: &FunctionChange) -> Result<(), Error> {
        let request = get(
            command::PORT_SET,
            about(|writer| {
                port.encode(writer);
                change.encode(writer);
            }),
        );
        self.done(format!("set the function behind port {port}: {change}"), request).await
    }

    /// All rates of all devices (`devlink port function rate show`).
    ///
    /// # Errors
    /// As told at [`Devlink`].
    pub async fn rates(&self) -> Result<Vec<Rate>, Error> {
        let rates = self
            .many("list rates".to_owned(), list(command::RATE_GET), |octets| Rate::decode(Attributes::new(octets)))
            .await?;
        Ok(rates.into_iter().flatten().collect())
    }

    /// One rate; `None` if it is of a kind that this library does not know.
    ///
    /// # Errors
    /// As told at [`Devlink`].
    pub async fn rate(&self, rate: &RateHandle) -> Result<Option<Rate>, Error> {
        let request = get(command::RATE_GET, about(|writer| rate.encode(writer)));
        self.one(format!("look at rate {rate}"), request, |octets| Rate::decode(Attributes::new(octets))).await
    }

    /// Changes a rate (`devlink port function rate set`).
    ///
    /// # Errors
    /// As told at [`Devlink`]. Of several changes, some may have been made.
    pub async fn set_rate(&self, rate: &RateHandle, change: &RateChange) -> Result<(), Error> {
        self.change_rate(command::RATE_SET, format!("set rate {rate}: {change}"), rate, change).await
    }

    /// Makes a node of the tree of rates (`devlink port function rate add`). Leaves cannot be made.
    ///
    /// # Errors
    /// As told at [`Devlink`].
    pub async fn new_rate(&self, device: &Device, name: &str, change: &RateChange) -> Result<(), Error> {
        let node = RateHandle::Node { device: device.clone(), name: name.to_owned() };
        self.change_rate(command::RATE_NEW, format!("make rate {node}: {change}"), &node, change).await
    }

    /// Deletes a node of the tree of rates (`devlink port function rate del`). It must have none below it.
    ///
    /// # Errors
    /// As told at [`Devlink`].
    pub async fn delete_rate(&self, device: &Device, name: &str) -> Result<(), Error> {
        let node = RateHandle::Node { device: device.clone(), name: name.to_owned() };
        self.change_rate(command::RATE_DEL, format!("delete rate {node}"), &node, &RateChange::default()).await
    }

    async fn change_rate(&self, command: u8, words: String, of: &RateHandle, change: &RateChange) -> Result<(), Error> {
        let request = get(
            command,
            about(|writer| {
                of.encode(writer);
                change.encode(writer);
            }),
        );
        self.done(words, request).await
    }

    /// All health reporters of all devices and ports (`devlink health show`).
    ///
    /// # Errors
    /// As told at [`Devlink`].
    pub async fn reporters(&self) -> Result<Vec<Reporter>, Error> {
        self.many("list health reporters".to_owned(), list(command::HEALTH_REPORTER_GET), |octets| {
            Reporter::decode(Attributes::new(octets))
        })
        .await
    }

    /// One health reporter of a device.
    ///
    /// # Errors
    /// As told at [`Devlink`].
    pub async fn reporter(&self, device: &Device, name: &str) -> Result<Reporter, Error> {
        let request = get(
            command::HEALTH_REPORTER_GET,
            about(|writer| {
                device.encode(writer);
                writer.text(attr::HEALTH_REPORTER_NAME, name);
            }),
        );
        self.one(format!("look at health reporter {name} of {device}"), request, |octets| {
            Reporter::decode(Attributes::new(octets))
        })
        .await
    }

    async fn done(&self, words: String, request: Request) -> Result<(), Error> {
        self.conversation.ask(words, request).await.map(drop)
    }

    async fn one<T>(&self, words: String, request: Request, decode: Decode<T>) -> Result<T, Error> {
        let replies = self.conversation.ask(words.clone(), request).await?;
        let Some(reply) = replies.first() else { return Err(Error::Lost { request: words }) };
        read(words, reply, decode)
    }

    /// What can be read of a list: a message that one driver makes odd hides no other device.
    async fn readable<T>(
        &self,
        words: &str,
        request: Request,
        decode: Decode<T>,
        mut left_out: impl FnMut(Error),
    ) -> Result<Vec<T>, Error> {
        let replies = self.conversation.ask(words.to_owned(), request).await?;
        let one = |reply: &Reply| read(words.to_owned(), reply, decode).map_err(&mut left_out).ok();
        Ok(replies.iter().filter_map(one).collect())
    }

    async fn many<T>(&self, words: String, request: Request, decode: Decode<T>) -> Result<Vec<T>, Error> {
        let replies = self.conversation.ask(words.clone(), request).await?;
        let all: Result<_, _> = replies.iter().map(|reply| decode(reply.octets())).collect();
        all.map_err(|source| Error::Malformed { request: words, source })
    }
}

type Decode<T> = fn(&[u8]) -> Result<T, Malformed>;

fn read<T>(request: String, reply: &Reply, decode: Decode<T>) -> Result<T, Error> {
    decode(reply.octets()).map_err(|source| Error::Malformed { request, source })
}
