//! What the tests of the lines share: a fleet in this process, its truth, and a reader of its own for DLMS.

#![expect(clippy::unwrap_used, reason = "helpers of tests, where a panic is the report")]
#![allow(dead_code, reason = "each test file uses a part")]

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::path::Path;
use std::time::Duration;

use firmware_sim::config::FleetFile;
use firmware_sim::run::RunningFleet;
use firmware_sim::speak::{LinePlace, Place};
use protocols::cosem::profile_generic::reader::{ProfileReader, ProfileRules};
use protocols::cosem::profile_generic::selection::Selection;
use protocols::cosem::profile_generic::{BUFFER, CAPTURE_OBJECTS, CAPTURE_PERIOD, CaptureObject};
use protocols::cosem::register::{SCALER_UNIT, ScalerUnit};
use protocols::dlms::acse::Password;
use protocols::dlms::apdu::{CosemAttribute, CosemMethod};
use protocols::dlms::client::{
    Authentication, ClientConfig, ClientError, ClientEvent, ClientOutput, ClientSession, ReadError, RequestError,
};
use protocols::dlms::data::Data;
use protocols::dlms::datetime::ClockRules;
use protocols::dlms::security::{Plain, Protection};
use protocols::link::{Link, LinkInput};
use protocols::metering::{Code, Kind, ObisCode, Quality, TelegramReading};
use serde_json::Value;
use tokio::time::Instant;

pub(crate) const LOAD: ObisCode = ObisCode::new(1, 0, 99, 1, 0, 255);

/// Starts the fleet of a file's text.
pub(crate) async fn start(text: &str) -> RunningFleet {
    RunningFleet::start(FleetFile::parse(text).unwrap().check().unwrap(), None).await.unwrap()
}

/// Where each meter is, with its id.
pub(crate) fn places(fleet: &RunningFleet) -> Vec<(String, LinePlace)> {
    let place = |place: &Place| match place {
        Place::Line(place) => place.clone(),
        other => panic!("{other:?} is no line"),
    };
    fleet.endpoints().iter().map(|endpoint| (endpoint.meter.0.clone(), place(&endpoint.place))).collect()
}

pub(crate) fn truth(path: &Path) -> Vec<Value> {
    std::fs::read_to_string(path).unwrap().lines().map(|line| line.parse().unwrap()).collect()
}

/// One reading in the words of the truth: code, kind, period, instant, nth, value, unit, quality.
pub(crate) type Told = (String, String, u64, String, u64, String, String, String);

pub(crate) fn told(line: &Value) -> Told {
    let text = |key: &str| line[key].as_str().unwrap().to_owned();
    (
        text("code"),
        text("kind"),
        line["period_s"].as_u64().unwrap(),
        text("captured_at"),
        line["nth"].as_u64().unwrap(),
        text("value"),
        text("unit"),
        text("quality"),
    )
}

/// A reading in the words of the truth.
pub(crate) fn read_as_told(reading: &TelegramReading) -> Told {
    (
        reading.code.to_string(),
        reading.kind.name().to_owned(),
        u64::from(reading.period_s),
        reading.captured_at.to_string(),
        u64::from(reading.nth),
        reading.quantity.decimal(),
        reading.quantity.unit.to_string(),
        reading.quality.to_string(),
    )
}

/// What the truth tells of one meter, of one kind of profile.
pub(crate) fn told_of(lines: &[Value], meter: &str, is_billing: bool) -> BTreeSet<Told> {
    let of_meter = lines.iter().filter(|line| line["meter"] == meter);
    of_meter.filter(|line| (line["kind"] == "billing") == is_billing).map(told).collect()
}

pub(crate) fn reader_config(password: Option<&str>) -> ClientConfig {
    let authentication = password.map_or(Authentication::None, |password| Authentication::Low(Password::new(password)));
    ClientConfig { authentication, response_timeout: Duration::from_secs(30), ..ClientConfig::default() }
}

/// A reader over any stream whose reads give up after a while.
pub(crate) struct Client<S, L: Link, P = Plain> {
    stream: S,
    session: ClientSession<L, P>,
    origin: Instant,
}

impl<S: Read + Write, L: Link> Client<S, L> {
    pub(crate) fn associate(stream: S, link: L, config: ClientConfig) -> Result<Self, ClientError> {
        Self::associate_with(stream, link, config, Plain)
    }
}

impl<S: Read + Write, L: Link, P: Protection> Client<S, L, P> {
    pub(crate) fn associate_with(stream: S, link: L, config: ClientConfig, protection: P) -> Result<Self, ClientError> {
        let session = ClientSession::with_protection(link, config, protection);
        let mut client = Self { stream, session, origin: Instant::now() };
        client.session.associate(client.origin.elapsed())?;
        let event = client.next_event()?;
        assert!(matches!(event, ClientEvent::Associated(_)), "{event:?}");
        Ok(client)
    }

    fn next_event(&mut self) -> Result<ClientEvent, ClientError> {
        loop {
            match self.session.poll() {
                ClientOutput::Send(octets) => self.stream.write_all(&octets).unwrap(),
                ClientOutput::Event(ClientEvent::Ignored(_) | ClientEvent::ShortNames(_)) => {}
                ClientOutput::Event(event) => return Ok(event),
                ClientOutput::WaitUntil(_) => {
                    let mut buffer = [0; 4096];
                    let count = self.stream.read(&mut buffer).unwrap_or(0);
                    let input = if count == 0 { LinkInput::Tick } else { LinkInput::Received(&buffer[..count]) };
                    self.session.handle(self.origin.elapsed(), input)?;
                }
            }
        }
    }

    pub(crate) fn get(
        &mut self,
        (class_id, obis, attribute): (u16, ObisCode, i8),
        selection: Option<&Selection>,
    ) -> Result<Result<Vec<u8>, ReadError>, ClientError> {
        let selection = selection.map(|selection| {
            let (selector, parameters) = selection.encode();
            [vec![selector], parameters.to_vec()].concat()
        });
        let attribute = CosemAttribute::new(class_id, obis, attribute);
        self.session.get(self.origin.elapsed(), attribute, selection)?;
        match self.next_event()? {
            ClientEvent::Value { value, .. } => Ok(Ok(value.data)),
            ClientEvent::Failed { error, .. } => Ok(Err(error)),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn value(&mut self, attribute: (u16, ObisCode, i8)) -> Result<Vec<u8>, ClientError> {
        Ok(self.get(attribute, None)?.unwrap())
    }

    pub(crate) fn set(&mut self, attribute: CosemAttribute, value: Vec<u8>) -> Result<(), RequestError> {
        self.session.set(self.origin.elapsed(), attribute, value).unwrap();
        match self.next_event().unwrap() {
            ClientEvent::Written { mut results, .. } => results.pop().unwrap(),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn invoke(&mut self, method: CosemMethod, parameters: Vec<u8>) -> Result<(), RequestError> {
        self.session.invoke(self.origin.elapsed(), method, Some(parameters)).unwrap();
        match self.next_event().unwrap() {
            ClientEvent::Invoked { mut results, .. } => results.pop().unwrap().map(drop),
            other => panic!("{other:?}"),
        }
    }

    /// Says it, and is gone before anybody answers.
    pub(crate) fn invoke_and_leave(mut self, method: CosemMethod, parameters: Vec<u8>) {
        self.session.invoke(self.origin.elapsed(), method, Some(parameters)).unwrap();
        while let ClientOutput::Send(octets) = self.session.poll() {
            self.stream.write_all(&octets).unwrap();
        }
        // The meter has done it once it answers, but nobody looks at what it says.
        assert_eq!(self.stream.read(&mut [0]).unwrap(), 1);
    }

    pub(crate) fn protection(&self) -> &P {
        self.session.protection()
    }

    pub(crate) fn release(mut self) -> Result<(), ClientError> {
        self.session.release(self.origin.elapsed())?;
        let event = self.next_event()?;
        assert_eq!(event, ClientEvent::Released);
        Ok(())
    }

    /// A profile, or a part of it, as readings in the words of the truth. Labels without deviation are Central European;
    /// derived labels are told as if they had been sent.
    pub(crate) fn profile(
        &mut self,
        obis: ObisCode,
        selection: Option<&Selection>,
    ) -> Result<BTreeSet<Told>, ClientError> {
        let objects = self.value((7, obis, CAPTURE_OBJECTS))?;
        let objects = CaptureObject::decode_list(&Data::from_bytes(&objects).unwrap()).unwrap();
        let period = self.value((7, obis, CAPTURE_PERIOD))?;
        let Data::DoubleLongUnsigned(period_s) = Data::from_bytes(&period).unwrap() else { panic!("a period") };
        let mut scalers = Vec::new();
        for object in &objects {
            scalers.push(if object.class_id == 3 {
                let scaler = self.value((3, object.logical_name, SCALER_UNIT))?;
                Some(ScalerUnit::decode(&Data::from_bytes(&scaler).unwrap()).unwrap())
            } else {
                None
            });
        }
        let buffer = self.get((7, obis, BUFFER), selection)?.unwrap();
        let mut rules = ProfileRules::new(period_s);
        rules.clock = ClockRules { assume_offset_minutes: 60, assume_daylight_saving_minutes: 60 };
        let mut reader = ProfileReader::new(&objects, rules, &buffer).unwrap();
        let mut all = BTreeSet::new();
        while let Some(row) = reader.next_row() {
            let row = row.unwrap();
            for (column, cell) in row.cells() {
                let Some(scaler) = &scalers[column] else { continue };
                let code = objects[column].logical_name;
                let kind = match code.0 {
                    [_, _, _, 29, ..] => Kind::Interval,
                    [_, _, _, 5, ..] => Kind::Average,
                    _ if obis == LOAD => Kind::Register,
                    _ => Kind::Billing,
                };
                let quantity = scaler.quantity(cell).unwrap();
                let period_s = if kind.has_period() { u64::from(period_s) } else { 0 };
                let quality = Quality(row.quality.0 & !Quality::LABEL_DERIVED.0);
                let reading = (
                    Code::from(code).to_string(),
                    kind.name().to_owned(),
                    period_s,
                    row.captured_at.to_string(),
                    u64::from(row.nth),
                    quantity.decimal(),
                    quantity.unit.to_string(),
                    quality.to_string(),
                );
                assert!(all.insert(reading), "a reading twice");
            }
        }
        Ok(all)
    }
}
