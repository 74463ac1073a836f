use protocols::cosem::clock;
use protocols::dlms::datetime::ClockRules;

use super::*;
use crate::clock::Zone;
use crate::consumption::{Consumption, Household};
use crate::faults::FaultRates;
use crate::meter::MeterSpec;
use crate::quirks::{Quirk, Quirks};

fn meter(quirks: &[Quirk], now: &str) -> VirtualMeter {
    let now: UtcMillis = now.parse().unwrap();
    let zone = Zone::CENTRAL_EUROPE;
    let spec = MeterSpec {
        id: "SIM:000001".parse().unwrap(),
        seed: 1,
        zone,
        drift_ppm: 0,
        profiles: vec![ProfileSpec::load(900, 96, vec![Column::ImportRegister, Column::ImportInterval])],
        quirks: Quirks::of(quirks.iter().copied()),
        faults: FaultRates::default(),
        import_start_wh: 5_000_000_000,
        installed_at: now.plus_ms(-3_600_000),
    };
    let mut meter = VirtualMeter::new(spec, Consumption::Household(Household::seeded(1, zone, 0)));
    meter.step_to(now);
    meter
}

fn clock_of(meter: &VirtualMeter) -> Clock {
    let mut found = Clock::new(ObisCode([0; 6]));
    for index in 1..=clock::CLOCK_BASE {
        let attribute = CosemAttribute::new(8, Clock::LOGICAL_NAME, index);
        let octets = read(meter, ClientRole::Public, attribute, None, None).unwrap();
        found.apply(index, &Data::from_bytes(&octets).unwrap()).unwrap();
    }
    found
}

#[test]
fn a_clock_tells_local_time_its_deviation_and_the_season() {
    let summer = clock_of(&meter(&[], "2026-07-01T10:00:00Z"));
    assert_eq!(summer.time.deviation_minutes(), Some(-120));
    assert_eq!((summer.time.time().hour(), summer.status.is_daylight_saving()), (Some(12), true));
    assert_eq!((summer.time_zone_minutes, summer.daylight_savings_enabled), (-60, true));
    let hours = [summer.daylight_savings_begin, summer.daylight_savings_end].map(|change| change.time().hour());
    assert_eq!(hours, [Some(2), Some(3)]);

    let quirks = [Quirk::StandardTimeAllYear, Quirk::DeviationUnspecified];
    let kamstrup = clock_of(&meter(&quirks, "2026-07-01T10:00:00Z"));
    assert_eq!((kamstrup.time.deviation_minutes(), kamstrup.time.time().hour()), (None, Some(11)));
    assert_eq!((kamstrup.status.is_daylight_saving(), kamstrup.daylight_savings_enabled), (false, false));
}

#[test]
fn registers_are_as_wide_as_their_values() {
    let meter = meter(&[], "2026-07-01T10:00:00Z");
    let value = |obis: ObisCode| read(&meter, ClientRole::Reader, CosemAttribute::new(3, obis, 2), None, None).unwrap();
    let wide = value(Measurand::ImportEnergy.obis());
    let shown = meter.value(Measurand::ImportEnergy).mantissa;
    assert_eq!(Data::from_bytes(&wide), Ok(Data::Long64(shown)));
    assert!(matches!(Data::from_bytes(&value(Measurand::ExportEnergy.obis())), Ok(Data::DoubleLongUnsigned(_))));
    assert!(matches!(Data::from_bytes(&value(Measurand::Voltage.obis())), Ok(Data::LongUnsigned(2_200..=2_400))));
    // What was captured last can be asked for alone.
    let (_, ring) = meter.profiles().next().unwrap();
    let newest = ring.entry(ring.len() - 1).unwrap().values[1] as u32;
    let interval = value(Column::ImportInterval.obis());
    assert_eq!(Data::from_bytes(&interval), Ok(Data::DoubleLongUnsigned(newest)));
}

#[test]
fn rows_leave_out_what_can_be_told_from_the_row_above() {
    let lengths = [&[][..], &[Quirk::NullStatus], &[Quirk::NullStatus, Quirk::NullClock]].map(|quirks| {
        let meter = meter(quirks, "2026-07-01T10:00:00Z");
        let buffer = CosemAttribute::new(7, ProfileSpec::LOAD_1, BUFFER);
        read(&meter, ClientRole::Reader, buffer, None, None).unwrap().len()
    });
    // Four rows, the first of them whole; an octet for a status, thirteen for a label.
    assert_eq!([lengths[0] - lengths[1], lengths[1] - lengths[2]], [3, 3 * 13]);
}

#[test]
fn the_event_log_is_a_profile_of_its_own() {
    let mut meter = meter(&[], "2026-07-01T10:00:00Z");
    meter.power_down();
    meter.step_to("2026-07-01T10:00:07.5Z".parse().unwrap());
    meter.power_up();
    let attribute = |index| CosemAttribute::new(7, EventLog::OBIS, index);
    let buffer = read(&meter, ClientRole::Reader, attribute(BUFFER), None, None).unwrap();
    let rows = Data::from_bytes(&buffer).unwrap().array().unwrap();
    let events: Vec<_> = rows.iter().map(|row| row.structure().unwrap()).collect();
    assert_eq!(
        events.iter().map(|event| event.at(1)).collect::<Vec<_>>(),
        [1, 2].map(|code| Some(Data::Unsigned(code)))
    );
    let restored = events[1].at(0).unwrap().date_time().unwrap().to_utc(ClockRules::default()).unwrap();
    assert_eq!(restored.utc.to_string(), "2026-07-01T10:00:07.500Z");
    let newest = [0x02, 0x04, 0x06, 0, 0, 0, 2, 0x06, 0, 0, 0, 0, 0x12, 0, 2, 0x12, 0, 2];
    let selection = [&[2][..], &newest].concat();
    let part = read(&meter, ClientRole::Reader, attribute(BUFFER), Some(&selection), None).unwrap();
    assert_eq!(part, [1, 1, 2, 1, 0x11, 2], "one row, one column");
}

/// Control, seen to fail: the quirk passed over.
#[test]
fn the_object_list_is_read_in_parts() {
    use protocols::cosem::association_ln::selection::ObjectId;

    let list = CosemAttribute::new(15, AssociationLn::CURRENT, OBJECT_LIST);
    let clock = ObjectId { class_id: 8, logical_name: Clock::LOGICAL_NAME };
    let read_part = |quirks: &[Quirk], role, selection: &ObjectSelection| {
        let (selector, parameters) = selection.encode();
        let selection = [vec![selector], parameters.to_vec()].concat();
        read(&meter(quirks, "2026-07-01T10:00:00Z"), role, list, Some(&selection), None)
    };
    let listed = |role, selection: &ObjectSelection| {
        let octets = read_part(&[], role, selection).unwrap();
        let objects = protocols::cosem::association_ln::object_list(&Data::from_bytes(&octets).unwrap()).unwrap();
        objects.map(Result::unwrap).collect::<Vec<_>>()
    };
    let one = listed(ClientRole::Reader, &ObjectSelection::Object(clock));
    assert_eq!((one.len(), ObjectId::from(&one[0]), one[0].attributes.len()), (1, clock, 9));
    let profiles = listed(ClientRole::Reader, &ObjectSelection::Classes(vec![7]));
    assert!(profiles.len() == 2 && profiles.iter().all(|object| object.class_id == 7 && object.attributes.is_empty()));
    let all = [ClientRole::Public, ClientRole::Reader].map(|role| listed(role, &ObjectSelection::WithoutRights).len());
    assert!(all[0] < all[1], "{all:?}");
    let refused = read_part(&[Quirk::NoSelectiveAccess], ClientRole::Reader, &ObjectSelection::WithoutRights);
    assert_eq!(refused, Err(DataAccessResult::ScopeOfAccessViolated));
}

/// Control, seen to fail: let the reader write.
#[test]
fn only_who_manages_a_meter_changes_it_and_the_list_says_so() {
    use protocols::cosem::disconnect_control::{OUTPUT_STATE, REMOTE_DISCONNECT, REMOTE_RECONNECT};
    use protocols::dlms::apdu::{ActionResult, CosemMethod};

    let now: UtcMillis = "2026-07-01T10:05:00Z".parse().unwrap();
    let mut meter = meter(&[], "2026-07-01T10:05:00Z");
    let time = CosemAttribute::new(8, Clock::LOGICAL_NAME, clock::TIME);
    let breaker = |method| CosemMethod::new(70, DisconnectControl::LOGICAL_NAME, method);
    let later = DataValue::octets_of(DateTime::from_utc(now.plus_ms(60_000), 120, ClockStatus(0x80))).to_vec();
    let zero = DataValue::Integer(0).to_vec();
    for role in [ClientRole::Public, ClientRole::Reader] {
        assert_eq!(write(&mut meter, role, time, None, &later, None), Err(DataAccessResult::ReadWriteDenied));
        let refused = invoke(&mut meter, role, breaker(REMOTE_DISCONNECT), Some(&zero), None);
        assert_eq!(refused, Err(ActionResult::READ_WRITE_DENIED));
    }
    assert_eq!((meter.shown(), meter.is_connected(), meter.event_log().entries().len()), (now, true, 0));

    let manager = ClientRole::Manager;
    assert_eq!(write(&mut meter, manager, time, None, &later, None), Ok(()));
    assert_eq!(meter.shown(), now.plus_ms(60_000));
    // Without a deviation, by the season that is told or the meter's own.
    for status in [ClockStatus(0x80), ClockStatus::UNSPECIFIED] {
        let local = DateTime::from_utc(now, 120, status);
        let open = DataValue::octets_of(DateTime::from_parts(local.date(), local.time(), None, status)).to_vec();
        assert_eq!(write(&mut meter, manager, time, None, &open, None), Ok(()));
        assert_eq!(meter.shown(), now, "{status:?}");
    }
    let codes: Vec<u8> = meter.event_log().entries().map(|entry| entry.code as u8).collect();
    assert_eq!(codes, [4, 5, 4, 5, 4, 5]);
    let output = CosemAttribute::new(70, DisconnectControl::LOGICAL_NAME, OUTPUT_STATE);
    for (method, is_closed) in [(REMOTE_DISCONNECT, false), (REMOTE_RECONNECT, true)] {
        assert_eq!(invoke(&mut meter, manager, breaker(method), Some(&zero), None), Ok(None));
        let state = read(&meter, manager, output, None, None).unwrap();
        assert_eq!(Data::from_bytes(&state), Ok(Data::Boolean(is_closed)));
    }
    for (attribute, value, refused) in [
        (CosemAttribute { attribute: 3, ..time }, &later, DataAccessResult::ReadWriteDenied),
        (time, &zero, DataAccessResult::TypeUnmatched),
        (CosemAttribute { class_id: 3, ..time }, &later, DataAccessResult::ObjectClassInconsistent),
    ] {
        assert_eq!(write(&mut meter, manager, attribute, None, value, None), Err(refused));
    }
    assert_eq!(invoke(&mut meter, manager, breaker(3), Some(&zero), None), Err(ActionResult::READ_WRITE_DENIED));
    assert_eq!(invoke(&mut meter, manager, breaker(1), None, None), Err(ActionResult::TYPE_UNMATCHED));

    let list = CosemAttribute::new(15, AssociationLn::CURRENT, OBJECT_LIST);
    for (role, mode) in [(ClientRole::Reader, 0), (manager, 1)] {
        let octets = read(&meter, role, list, None, None).unwrap();
        let data = Data::from_bytes(&octets).unwrap();
        let listed: Vec<_> =
            protocols::cosem::association_ln::object_list(&data).unwrap().map(Result::unwrap).collect();
        let of = |class: u16| listed.iter().find(|object| object.class_id == class).unwrap();
        assert_eq!(of(8).attribute(clock::TIME).unwrap().mode.can_write(AssociationLn::VERSION), mode == 1);
        assert_eq!(of(70).methods.iter().map(|access| access.mode).collect::<Vec<_>>(), [mode; 2]);
    }
}
