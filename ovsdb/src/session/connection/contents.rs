//! How the replica is filled on a connection: the schema that has to fit, the best way of monitoring that the server
//! has, the contents, and their updates.

use std::sync::Arc;

use serde_json::value::RawValue;
use serde_json::{Map as Object, Value, json};

use super::{Connection, Pending};
use crate::message;
use crate::replica::Replica;
use crate::schema::DatabaseSchema;
use crate::session::{SessionError, SessionState, lock};
use crate::table::Layout;
use crate::transact::monitor_request;
use crate::update::{self, Form};
use crate::value::{DecodeError, Uuid};
use crate::words::Words;

/// The name of our only monitor on the connection.
pub(super) const MONITOR: &str = "replica";

/// That the replica holds the contents as of a known transaction, from which `monitor_cond_since` may go on.
pub(in super::super) struct Retained {
    pub(super) layout: Arc<Layout>,
    pub(super) rows: usize,
    pub(super) last_transaction: Uuid,
}

/// The ways of monitoring, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Method {
    /// `monitor_cond_since` and `update3`, since Open vSwitch 2.12.
    CondSince,
    /// `monitor_cond` and `update2`, since Open vSwitch 2.6.
    Cond,
    /// `monitor` and `update`, RFC 7047.
    Plain,
}

impl Method {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::CondSince => "monitor_cond_since",
            Self::Cond => "monitor_cond",
            Self::Plain => "monitor",
        }
    }

    const fn form(self) -> Form {
        match self {
            Self::CondSince | Self::Cond => Form::Differences,
            Self::Plain => Form::Values,
        }
    }

    pub(super) const fn fallback(self) -> Option<Self> {
        match self {
            Self::CondSince => Some(Self::Cond),
            Self::Cond => Some(Self::Plain),
            Self::Plain => None,
        }
    }
}

/// What a monitor feeds.
pub(super) struct Monitored {
    pub(super) layout: Arc<Layout>,
    /// Rows of the replica.
    pub(super) rows: usize,
    words: Words,
    /// The zero UUID when the server keeps no history.
    pub(super) last_transaction: Uuid,
    form: Form,
}

impl<R: Replica> Connection<'_, R> {
    pub(super) fn begin_monitoring(&mut self, schema: &RawValue) -> Result<(), SessionError> {
        let schema = message::read(schema).and_then(|schema| DatabaseSchema::decode(&schema));
        let schema = schema.map_err(SessionError::SchemaUndecodable)?;
        let layout = Arc::new(Layout::check(&schema, R::TABLES)?);
        let (rows, last_transaction) = match self.session.retained.take() {
            Some(retained) if retained.layout == layout => (retained.rows, retained.last_transaction),
            _ => (0, Uuid::nil()),
        };
        let words = Words::default();
        self.monitored = Some(Monitored { layout, rows, words, last_transaction, form: Form::Differences });
        self.session.state.send_replace(SessionState::Syncing);
        self.monitor(Method::CondSince);
        Ok(())
    }

    pub(super) fn monitor(&mut self, method: Method) {
        let Some(monitored) = &self.monitored else {
            return;
        };
        let mut tables = Object::new();
        for table in monitored.layout.tables() {
            let columns: Vec<&str> = table.present().map(|(_, name, _)| name).collect();
            // A table that the server does not have has no columns and cannot be named.
            if !columns.is_empty() {
                let conditions = match method {
                    Method::Plain => None,
                    _ => self.session.config.conditions.get(table.name()),
                };
                let request = monitor_request(columns, conditions.map_or(&[], Vec::as_slice));
                tables.insert(table.name().to_owned(), json!([request]));
            }
        }
        let mut params = vec![Value::from(R::DATABASE), Value::from(MONITOR), Value::Object(tables)];
        if method == Method::CondSince {
            params.push(Value::from(monitored.last_transaction.to_string()));
        }
        self.call(method.name(), &Value::Array(params), Pending::Monitor(method));
    }

    /// Takes the answer to the monitor call: everything, or all that happened since the last connection.
    pub(super) fn begin_contents(&mut self, method: Method, answer: &RawValue) -> Result<(), SessionError> {
        let (found, last_transaction, updates) = match method {
            Method::CondSince => {
                let (found, transaction, updates): (bool, &RawValue, &RawValue) =
                    message::read(answer).map_err(|e| SessionError::Message(e.within(method.name())))?;
                (found, transaction_id(transaction)?, updates)
            }
            Method::Cond | Method::Plain => (false, Uuid::nil(), answer),
        };
        let Some(monitored) = &mut self.monitored else {
            return Ok(());
        };
        // A server cannot go on from nothing, whatever it says.
        let found = found && !monitored.last_transaction.is_nil();
        monitored.form = method.form();
        monitored.last_transaction = last_transaction;
        let resync_reason = self.session.resync_reason.take();
        if !found {
            monitored.rows = 0;
            self.session.replica.reset(&monitored.layout);
            if let Some(reason) = resync_reason {
                *lock(&self.session.statistics).resyncs.entry(reason).or_default() += 1;
            }
        }
        self.ready = true;
        self.changed = true;
        let applied = self.update(updates);
        // Contents that are wrong from the start were never ready.
        self.ready = applied.is_ok();
        applied
    }

    pub(super) fn update(&mut self, updates: &RawValue) -> Result<(), SessionError> {
        let Some(monitored) = self.monitored.as_mut().filter(|_| self.ready) else {
            return Err(SessionError::Message(DecodeError::new("it comes before the contents")));
        };
        let Monitored { layout, rows, words, form, .. } = monitored;
        let max_rows = self.session.config.limits.max_rows;
        let applied = update::apply(&mut self.session.replica, layout, words, *form, max_rows - *rows, updates.get());
        let applied = applied.map_err(|error| match error {
            update::UpdateError::TooManyRows(_) => SessionError::TooManyRows(max_rows),
            other => SessionError::Update(other),
        })?;
        // Whatever was deleted was there, so there are never fewer than none.
        *rows = *rows + applied.inserted - applied.deleted;
        self.changed |= applied.any();
        Ok(())
    }
}

pub(super) fn transaction_id(json: &RawValue) -> Result<Uuid, SessionError> {
    let text = message::read::<String>(json);
    text.and_then(|text| crate::value::parse_uuid(&text)).map_err(SessionError::Message)
}
