//! Who manages a DLMS meter sets its clock, switches its breaker and writes its passive calendar; who reads it does not.

#![expect(clippy::unwrap_used, reason = "helpers of tests, where a panic is the report")]

mod common;

use std::net::TcpStream;
use std::time::Duration;

use common::{Client, LOAD, places, reader_config, start};
use firmware_sim::speak::LinePlace;
use protocols::cosem::InterfaceClass as _;
use protocols::cosem::activity_calendar::{
    ACTIVATE_PASSIVE_CALENDAR, ACTIVATE_PASSIVE_CALENDAR_TIME, ActivityCalendar, CALENDAR_NAME_ACTIVE,
    CALENDAR_NAME_PASSIVE, WEEK_PROFILE_TABLE_PASSIVE,
};
use protocols::dlms::acse::Password;
use protocols::dlms::apdu::{ActionResult, CosemAttribute, CosemMethod, DataAccessResult};
use protocols::dlms::client::{Authentication, ClientConfig, RequestError};
use protocols::dlms::data::Data;
use protocols::dlms::datetime::{ClockRules, ClockStatus, DateTime};
use protocols::dlms::security::{Challenge, HighLevel};
use protocols::dlms::value::DataValue;
use protocols::hdlc::{ClientAddress, HdlcAddress, HdlcClient, HdlcConfig};
use protocols::link::Link;
use protocols::metering::{ObisCode, UtcMillis};
use protocols::wrapper::{WrapperClient, WrapperConfig};

const TIME: CosemAttribute = CosemAttribute::new(8, ObisCode::new(0, 0, 1, 0, 0, 255), 2);
const BREAKER: ObisCode = ObisCode::new(0, 0, 96, 3, 10, 255);
const EVENTS: ObisCode = ObisCode::new(0, 0, 99, 98, 0, 255);

fn associate(place: &LinePlace, client: u8, authentication: Authentication) -> Client<TcpStream, Box<dyn Link>> {
    let stream = TcpStream::connect(place.address.as_deref().unwrap()).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    let link: Box<dyn Link> = match (place.wport, place.hdlc_address) {
        (Some(wport), _) => Box::new(WrapperClient::new(WrapperConfig::new(client.into(), wport))),
        (None, physical) => {
            let address = HdlcAddress::two(1, physical.unwrap()).unwrap();
            Box::new(HdlcClient::new(HdlcConfig::new(ClientAddress::new(client).unwrap(), address)))
        }
    };
    let config = ClientConfig { authentication, proposed: ClientConfig::PROPOSED_WITH_COMMANDS, ..reader_config(None) };
    Client::associate(stream, link, config).unwrap()
}

fn reader(place: &LinePlace) -> Client<TcpStream, Box<dyn Link>> {
    associate(place, 1, Authentication::Low(Password::new(place.password.as_deref().unwrap())))
}

fn manager(place: &LinePlace) -> Client<TcpStream, Box<dyn Link>> {
    let how = HighLevel::Sha1(Password::new(place.management_password.as_deref().unwrap()));
    associate(place, 2, Authentication::High { how, challenge: Challenge::new([7; Challenge::LEN]).unwrap() })
}

fn time(client: &mut Client<TcpStream, Box<dyn Link>>) -> UtcMillis {
    let value = client.value((8, TIME.obis, 2)).unwrap();
    Data::from_bytes(&value).unwrap().date_time().unwrap().to_utc(ClockRules::default()).unwrap().utc
}

/// Control, seen to fail: `may_write` for every role.
#[tokio::test(flavor = "multi_thread")]
async fn who_manages_a_meter_sets_its_clock_and_switches_its_breaker() {
    // Five minutes past a full quarter of an hour.
    let fleet = start(
        "start_at = \"2026-07-01T12:05:00Z\"\nhistory_days = 0.2\n[[meters]]\nprotocol = \"dlms-tcp\"\n\
         [[meters]]\nprotocol = \"dlms-hdlc\"\nline = \"tcp\"",
    )
    .await;
    let places = places(&fleet);
    tokio::task::spawn_blocking(move || {
        for (meter, place) in &places {
            let mut reader = reader(place);
            let before = time(&mut reader);
            let later = |by_ms| DataValue::octets_of(DateTime::from_utc(before.plus_ms(by_ms), 0, ClockStatus::GOOD));
            let method = |method| CosemMethod::new(70, BREAKER, method);
            let denied = Err(RequestError::Refused(DataAccessResult::ReadWriteDenied));
            assert_eq!(reader.set(TIME, later(120_000).to_vec()), denied, "{meter}");
            let denied = Err(RequestError::MethodRefused(ActionResult::READ_WRITE_DENIED));
            assert_eq!(reader.invoke(method(1), DataValue::Integer(0).to_vec()), denied, "{meter}");
            assert!(time(&mut reader).since(before) < 60_000, "{meter}");
            reader.release().unwrap();

            let mut manager = manager(place);
            let entries = manager.profile(LOAD, None).unwrap().len();
            manager.set(TIME, later(120_000).to_vec()).unwrap();
            let after = time(&mut manager).since(before);
            assert!((120_000..180_000).contains(&after), "{meter}: {after}");
            assert_eq!(manager.profile(LOAD, None).unwrap().len(), entries, "{meter}: no interval ends by it");
            // Set over the end of an interval: it is captured at once, and marked.
            manager.set(TIME, later(720_000).to_vec()).unwrap();
            let captured = manager.profile(LOAD, None).unwrap();
            let newest = captured.iter().max_by_key(|told| told.3.clone()).unwrap();
            assert!(captured.len() > entries && newest.7.contains("clock-adjusted"), "{meter}: {newest:?}");
            for (number, is_closed) in [(1, false), (2, true)] {
                manager.invoke(method(number), DataValue::Integer(0).to_vec()).unwrap();
                let state = manager.value((70, BREAKER, 2)).unwrap();
                assert_eq!(Data::from_bytes(&state), Ok(Data::Boolean(is_closed)), "{meter}");
            }
            let log = manager.value((7, EVENTS, 2)).unwrap();
            let rows = Data::from_bytes(&log).unwrap().array().unwrap();
            let codes = rows.iter().map(|row| row.structure().unwrap().at(1).unwrap().integer().unwrap());
            assert_eq!(codes.collect::<Vec<_>>(), [4, 5, 4, 5, 62, 63], "{meter}");
            manager.release().unwrap();
        }
    })
    .await
    .unwrap();
    fleet.stop().await;
}

/// Control, seen to fail: leave the calendar out of `may_write`.
#[tokio::test(flavor = "multi_thread")]
async fn who_manages_a_meter_writes_its_passive_calendar_and_activates_it() {
    let fleet = start("history_days = 0.1\n[[meters]]\nprotocol = \"dlms-tcp\"").await;
    let places = places(&fleet);
    tokio::task::spawn_blocking(move || {
        let place = &places[0].1;
        let object = ActivityCalendar::LOGICAL_NAME;
        let attribute = |index| CosemAttribute::new(ActivityCalendar::CLASS_ID, object, index);
        let activate = CosemMethod::new(ActivityCalendar::CLASS_ID, object, ACTIVATE_PASSIVE_CALENDAR);
        let name = DataValue::OctetString(b"2027".to_vec()).to_vec();
        let mut reader = reader(place);
        let denied = Err(RequestError::Refused(DataAccessResult::ReadWriteDenied));
        assert_eq!(reader.set(attribute(CALENDAR_NAME_PASSIVE), name.clone()), denied);
        reader.release().unwrap();
        let mut manager = manager(place);
        let read = |manager: &mut Client<TcpStream, Box<dyn Link>>| {
            let mut calendar = ActivityCalendar::new(object);
            for index in CALENDAR_NAME_ACTIVE..=ACTIVATE_PASSIVE_CALENDAR_TIME {
                let value = manager.value((ActivityCalendar::CLASS_ID, object, index)).unwrap();
                calendar.apply(index, &Data::from_bytes(&value).unwrap()).unwrap();
            }
            calendar
        };
        let before = read(&mut manager);
        assert_eq!((before.active.check(), &before.active), (Ok(()), &before.passive));
        assert_eq!(manager.set(attribute(CALENDAR_NAME_ACTIVE), name.clone()), denied);
        manager.set(attribute(CALENDAR_NAME_PASSIVE), name).unwrap();
        assert_eq!(read(&mut manager).active.name, before.active.name);
        manager.invoke(activate, DataValue::Integer(0).to_vec()).unwrap();
        assert_eq!(read(&mut manager).active.name, b"2027");
        // No week is left for its season.
        manager.set(attribute(WEEK_PROFILE_TABLE_PASSIVE), DataValue::Array(Vec::new()).to_vec()).unwrap();
        let refused = Err(RequestError::MethodRefused(ActionResult::OTHER_REASON));
        assert_eq!(manager.invoke(activate, DataValue::Integer(0).to_vec()), refused);
        manager.release().unwrap();
    })
    .await
    .unwrap();
    fleet.stop().await;
}
