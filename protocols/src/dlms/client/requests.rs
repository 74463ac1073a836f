//! What an owner asks for, as the tasks that do it: those of logical names, or those of short names.

use std::time::Duration;

use super::access::{Access, Accessing};
use super::invoke::{Invocation, Invoke};
use super::read::{Read, Selected};
use super::task::Task;
use super::unconfirmed::Unconfirmed;
use super::variables::{Report, Variables};
use super::write::{Assignment, Write};
use super::{ClientError, ClientSession, RequestId};
use crate::dlms::apdu::{CosemAttribute, CosemMethod};
use crate::dlms::security::{Protection, Purpose};
use crate::dlms::short_names::Referencing;
use crate::link::Link;

impl<L: Link, P: Protection> ClientSession<L, P> {
    /// Asks for one attribute, or with an access selector and its encoded parameters for a part of it.
    pub fn get(
        &mut self,
        now: Duration,
        attribute: CosemAttribute,
        selection: Option<Vec<u8>>,
    ) -> Result<RequestId, ClientError> {
        let wanted = Selected { attribute, selection };
        self.request(now, |request, referencing| match referencing {
            Referencing::LogicalNames => Box::new(Read::single(request, wanted)),
            Referencing::ShortNames => Box::new(Variables::new(request, Report::Value, vec![Accessing::Get(wanted)])),
        })
    }

    /// Asks for several attributes, in as few GETs as the association allows.
    pub fn get_list(&mut self, now: Duration, wanted: Vec<Selected>) -> Result<RequestId, ClientError> {
        self.request(now, |request, referencing| match referencing {
            Referencing::LogicalNames => Box::new(Read::list(request, wanted)),
            Referencing::ShortNames => variables(request, Report::Values, wanted, Accessing::Get),
        })
    }

    /// Writes one encoded value. [`super::ClientEvent::Written`] follows.
    pub fn set(&mut self, now: Duration, attribute: CosemAttribute, value: Vec<u8>) -> Result<RequestId, ClientError> {
        self.set_list(now, vec![Assignment { target: Selected::whole(attribute), value }])
    }

    /// Writes several attributes or parts of them, in as few SETs as the association allows, each value in blocks if it must be.
    pub fn set_list(&mut self, now: Duration, wanted: Vec<Assignment>) -> Result<RequestId, ClientError> {
        self.request(now, |request, referencing| match referencing {
            Referencing::LogicalNames => Box::new(Write::new(request, wanted)),
            Referencing::ShortNames => variables(request, Report::Written, wanted, Accessing::Set),
        })
    }

    /// Invokes a method with its encoded parameters. [`super::ClientEvent::Invoked`] follows.
    pub fn invoke(
        &mut self,
        now: Duration,
        method: CosemMethod,
        parameters: Option<Vec<u8>>,
    ) -> Result<RequestId, ClientError> {
        self.invoke_list(now, vec![Invocation { method, parameters }])
    }

    /// Invokes several methods, in as few ACTIONs as the association allows. One that is refused does not keep back those behind it.
    pub fn invoke_list(&mut self, now: Duration, wanted: Vec<Invocation>) -> Result<RequestId, ClientError> {
        self.request(now, |request, referencing| match referencing {
            Referencing::LogicalNames => Box::new(Invoke::new(request, wanted)),
            Referencing::ShortNames => variables(request, Report::Invoked, wanted, Accessing::Action),
        })
    }

    /// Reads, writes and invokes in one exchange, or in as few as the meter's APDUs take. [`super::ClientEvent::Accessed`] follows.
    /// With short names each change from one of them to another is an exchange more.
    pub fn access(&mut self, now: Duration, wanted: Vec<Accessing>) -> Result<RequestId, ClientError> {
        self.request(now, |request, referencing| match referencing {
            Referencing::LogicalNames => Box::new(Access::new(request, wanted)),
            Referencing::ShortNames => Box::new(Variables::new(request, Report::Accessed, wanted)),
        })
    }

    /// Writes one encoded value without being answered, in one APDU. [`super::ClientEvent::Sent`] follows; what came of it, nobody says.
    pub fn set_unconfirmed(&mut self, now: Duration, wanted: Assignment) -> Result<RequestId, ClientError> {
        self.request(now, |request, _| Box::new(Unconfirmed::new(request, Accessing::Set(wanted))))
    }

    /// Invokes a method in the same way.
    pub fn invoke_unconfirmed(&mut self, now: Duration, wanted: Invocation) -> Result<RequestId, ClientError> {
        self.request(now, |request, _| Box::new(Unconfirmed::new(request, Accessing::Action(wanted))))
    }

    fn request(
        &mut self,
        now: Duration,
        task: impl FnOnce(RequestId, Referencing) -> Box<dyn Task>,
    ) -> Result<RequestId, ClientError> {
        let request = self.take_request_id()?;
        self.enqueue(now, task(request, self.config.referencing))?;
        Ok(request)
    }

    /// The first request waits until the object list says what its objects are called.
    pub(super) fn read_names_first(&mut self) {
        if self.names_wanted && !self.queue.is_empty() {
            self.names_wanted = false;
            self.queue.push_front(Box::new(Variables::object_list()));
        }
    }

    /// What follows waits for the link, not for the meter.
    pub(super) fn transmit_unconfirmed(&mut self, now: Duration, apdu: Vec<u8>) -> Result<(), ClientError> {
        self.take_invoke_id();
        let sent = match self.protection.protect(Purpose::Service, apdu) {
            Ok(apdu) => self.link.send_unconfirmed(now, &apdu),
            Err(error) => {
                self.close(now, Some(ClientError::Protection(error)));
                return Ok(());
            }
        };
        self.waits_for_link = !self.link.is_ready();
        self.is_unanswered = self.config.referencing == Referencing::ShortNames;
        sent.or_else(|error| self.link_failed(error))
    }
}

fn variables<T>(request: RequestId, report: Report, wanted: Vec<T>, access: impl Fn(T) -> Accessing) -> Box<Variables> {
    Box::new(Variables::new(request, report, wanted.into_iter().map(access).collect()))
}
