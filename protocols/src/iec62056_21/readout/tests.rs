use super::*;
use crate::iec62056_21::message::{Bcc, Expectation, Message, Scan, scan};
use crate::iec62056_21::{Identification, IdentityLine, MeterClock, ReadQuirks};
use crate::metering::Quality;

const AT: &str = "2026-11-23T02:35:15Z";

fn now() -> UtcMillis {
    AT.parse().unwrap()
}

fn block(identification: &str, content: &str) -> DataBlock {
    let identification = Identification::parse(identification.as_bytes());
    DataBlock { identification, content: content.into(), quality: Quality::GOOD }
}

fn decode(identification: &str, content: &str, settings: &Settings) -> Readout {
    Readout::decode(&block(identification, content), settings, now()).unwrap()
}

fn plain(content: &str) -> Readout {
    decode("SIM5X", &format!("0.0.0(1)\r\n{content}"), &Settings::default())
}

/// `code kind quantity @instant`, and the occurrence and quality where there are any.
fn shown(readout: &Readout) -> Vec<String> {
    let show = |reading: &TelegramReading| {
        let at = if reading.captured_at == now() { String::new() } else { format!(" @{}", reading.captured_at) };
        let occurred = reading.occurred_at.map_or(String::new(), |at| format!(" occurred {at}"));
        let quality = if reading.quality == Quality::GOOD { String::new() } else { format!(" {}", reading.quality) };
        format!("{} {} {}{at}{occurred}{quality}", reading.code, reading.kind, reading.quantity)
    };
    readout.readings.iter().map(show).collect()
}

fn events(readout: &Readout) -> Vec<String> {
    let show = |event: &Event| {
        let raw = String::from_utf8_lossy(&event.raw);
        format!("{} {:#x} {raw:?} {:?}", event.log, event.code, event.text)
    };
    readout.events.iter().map(show).collect()
}

fn problems(readout: &Readout) -> Vec<String> {
    readout.problems.iter().map(ToString::to_string).collect()
}

/// One running register, the last billing period, and fourteen slots that were never filled.
fn with_slots(code: &str, current: &str, last: &str, empty: &str) -> String {
    format!("{code}({current}\r\n{code}*01({last}\r\n{}", format!("{code}*00({empty}\r\n").repeat(14))
}

/// The read-out of a Landis+Gyr ZMD310 (firmware B40) with its block check, octet for octet as in the public tests of a message
/// layer for smart meters (`sample_landis_gyr_data_message_frame`; the many empty slots are written by repetition).
fn landis_gyr() -> Vec<u8> {
    let mut text = String::from(
        "1-1:F.F(00000000)\r\n1-1:0.0.0(001LGZ0056859504)\r\n1-1:0.9.1(185532)\r\n1-1:0.9.2(210410)\r\n1-1:0.1.0(01)\r\n\
         1-1:0.1.2*01(2104010000)\r\n",
    );
    text += &"1-1:0.1.2*00(0000000000)\r\n".repeat(14);
    text += "1-1:1.5.0(00.030*kW)\r\n";
    let demand = "00.000)(0000000000)";
    text += &with_slots("1-1:1.6.0", "10.102*kW)(2104070015)", "06.130)(2101281415)", demand);
    text += &with_slots("1-1:1.8.0", "0000094.5*kWh)", "0000010.2)", "0000000.0)");
    text += "1-1:2.5.0(00.000*kW)\r\n";
    text += &with_slots("1-1:2.6.0", "09.293*kW)(2104021300)", "09.301)(2103301415)", demand);
    for (code, current, last) in [
        ("1-1:2.8.0", "0000293.9*kWh)", "0000106.8)"),
        ("1-1:5.8.0", "0000001.1*kvarh)", "0000001.1)"),
        ("1-1:6.8.0", "0000000.3*kvarh)", "0000000.3)"),
        ("1-1:7.8.0", "0000036.8*kvarh)", "0000008.8)"),
        ("1-1:8.8.0", "0000158.8*kvarh)", "0000029.5)"),
    ] {
        text += &with_slots(code, current, last, "0000000.0)");
    }
    text += "1-1:C.5(0000E0F0)\r\n1-1:C.7.0(00000008)\r\n1-1:C.7.1(00000009)\r\n1-1:C.7.2(00000010)\r\n1-1:C.7.3(00000010)\r\n\
        1-1:0.2.0(B40)\r\n1-1:0.2.1(017)\r\n1-1:0.2.8(7F42)\r\n1-1:32.7.0(235.2*V)\r\n1-1:52.7.0(235.0*V)\r\n\
        1-1:72.7.0(237.6*V)\r\n1-1:31.7.0(003.54*A)\r\n1-1:51.7.0(007.63*A)\r\n1-1:71.7.0(003.81*A)\r\n\
        1-1:36.7.0(-000.82*kW)\r\n1-1:56.7.0( 001.67*kW)\r\n1-1:76.7.0(-000.81*kW)\r\n1-1:16.7.0( 000.03*kW)\r\n\
        1-1:151.7.0(-000.05*kvar)\r\n1-1:171.7.0(-000.51*kvar)\r\n1-1:191.7.0(-000.37*kvar)\r\n1-1:131.7.0(-000.95*kvar)\r\n\
        1-1:0.5.1.2(80.000*kW)\r\n!\r\n";
    [b"\x02", text.as_bytes(), b"\x03\n"].concat()
}

#[test]
fn a_landis_gyr_zmd310_reads_as_the_eye_does() {
    let octets = landis_gyr();
    let Scan::Message { message: Message::Data(data), used } =
        scan(&octets, Expectation { option_select: false, block_octets_max: 20_000 })
    else {
        panic!("no block")
    };
    assert_eq!((used, data.bcc, data.is_last), (octets.len(), Bcc::Valid, true));
    let content = std::str::from_utf8(data.content).unwrap();
    let readout = decode("LGZ5\\2ZMD3104107.B40", content, &Settings::default());
    assert_eq!(problems(&readout), [""; 0]);
    assert_eq!(readout.meter.as_str(), "001LGZ0056859504");
    assert_eq!(readout.clock, Some("2021-04-10T16:55:32Z".parse().unwrap()));
    assert_eq!(readout.captured_at, now());
    let readings = shown(&readout);
    assert_eq!(
        readings[..9],
        [
            "1-1:0.1.0 register 1 count",
            "1-1:1.5.0 instant 30 W",
            "1-1:1.6.0 maximum 10102 W occurred 2021-04-06T22:15:00Z",
            "1-1:1.6.0*1 billing 6130 W @2021-03-31T22:00:00Z occurred 2021-01-28T13:15:00Z",
            "1-1:1.8.0 register 945e2 Wh",
            "1-1:1.8.0*1 billing 102e2 Wh @2021-03-31T22:00:00Z",
            "1-1:2.5.0 instant 0 W",
            "1-1:2.6.0 maximum 9293 W occurred 2021-04-02T11:00:00Z",
            "1-1:2.6.0*1 billing 9301 W @2021-03-31T22:00:00Z occurred 2021-03-30T12:15:00Z",
        ]
    );
    assert!(readings.contains(&"1-1:C.7.0 register 8 count".replace("C.7", "96.7")), "{readings:?}");
    assert!(readings.contains(&"1-1:56.7.0 instant 167e1 W".to_owned()), "{readings:?}");
    assert!(readings.contains(&"1-1:36.7.0 instant -82e1 W".to_owned()));
    assert!(readings.contains(&"iec62056-21:1-1:0.5.1.2 instant 80000 W".to_owned()));
    assert_eq!(readings.len(), 9 + 10 + 4 + 15);
    assert_eq!(
        events(&readout),
        [
            "1-1:97.97.0 0x0 \"00000000\" \"\"",
            "1-1:96.5.0 0x0 \"0000E0F0\" \"0000E0F0\"",
            "1-1:0.2.0 0x0 \"B40\" \"B40\"",
            "1-1:0.2.1 0x11 \"017\" \"\"",
            "1-1:0.2.8 0x0 \"7F42\" \"7F42\"",
        ]
    );
}

/// An Elster AS1440, from a public ESPHome component for OBIS meters (`/ABB5\@V9.21`).
#[test]
fn an_elster_as1440_reads_as_the_eye_does() {
    let content = "F.F(00000000)\r\n0.0.0(03224928)\r\n0.1.0(32)\r\n0.1.2*32(2112010000)\r\n0.1.2*18(2010010000)\r\n\
        1.8.1(052481.2*kWh)\r\n1.8.1*32(051967.9)\r\n1.8.1*18(040911.4)\r\n2.8.1(033594.7*kWh)\r\n2.8.1*32(033578.7)\r\n\
        0.9.1(221044)\r\n0.9.2(211222)\r\n32.7.0(231.9*V)\r\nC.6.0(001987)\r\n0.2.0(CE07)\r\n0.2.1(92116401)\r\n!\r\n";
    let readout = decode("ABB5\\@V9.21", content, &Settings::default());
    assert_eq!(problems(&readout), [""; 0]);
    assert_eq!(readout.meter.as_str(), "ABB:03224928");
    assert_eq!(readout.clock, Some("2021-12-22T21:10:44Z".parse().unwrap()));
    assert_eq!(
        shown(&readout),
        [
            "1-0:0.1.0 register 32 count",
            "1-0:1.8.1 register 524812e2 Wh",
            "1-0:1.8.1*32 billing 519679e2 Wh @2021-11-30T23:00:00Z",
            "1-0:1.8.1*18 billing 409114e2 Wh @2020-09-30T22:00:00Z",
            "1-0:2.8.1 register 335947e2 Wh",
            "1-0:2.8.1*32 billing 335787e2 Wh @2021-11-30T23:00:00Z",
            "1-0:32.7.0 instant 231.9 V",
        ]
    );
}

/// An Itron EM214, from the public tests of Apollon77/smartmeter-obis.
#[test]
fn an_itron_em214_reads_as_the_eye_does() {
    let content = "F.F(00000000)\r\n0.0.0(1240007670003202)\r\n0.2.0(V01.69#EEA3546C)\r\n0.2.1(00017245)\r\n1.7.0(00.49*kW)\r\n\
        1.8.1(022108.7*kWh)\r\n31.7.0(+000.8*A)\r\nC.1(53965555)\r\nC.5.0(L1-L2-L3)\r\nC.6.3(03.78*V)\r\nC.8.1(024616.21*h)\r\n\
        C.13.21(00000001*secs)\r\nC.90(00000100)\r\n!\r\n";
    let readout = decode("ITR5EM214", content, &Settings::default());
    assert_eq!(problems(&readout), [""; 0]);
    assert_eq!(readout.meter.as_str(), "ITR:53965555");
    assert_eq!(
        shown(&readout),
        [
            "1-0:1.7.0 instant 49e1 W",
            "1-0:1.8.1 register 221087e2 Wh",
            "1-0:31.7.0 instant 0.8 A",
            "0-0:96.6.3 instant 3.78 V",
            "0-0:96.8.1 register 24616.21 h",
            "0-0:96.13.21 instant 1 s",
        ]
    );
    let logs: Vec<_> = readout.events.iter().map(|event| (&event.log[..], event.code, &event.text[..])).collect();
    assert_eq!(
        logs,
        [
            ("0-0:97.97.0", 0, ""),
            ("1-0:0.2.0", 0, "V01.69#EEA3546C"),
            ("1-0:0.2.1", 17_245, ""),
            ("0-0:96.5.0", 0, "L1-L2-L3"),
            ("0-0:96.90.0", 100, ""),
        ]
    );
}

/// An Iskraemeco MT174, after the lines in a public reader of that meter (registers of its choosing).
#[test]
fn an_iskra_mt174_reads_as_the_eye_does() {
    let content = "0-0:F.F.0*255(0000000)\r\n1-0:0.0.0*255(352143)\r\n0-0:C.1.0*255(62791737)\r\nC.1.1(ISK0MT174-0001)\r\n\
        1-0:1.8.1*255(0001798.478*kWh)\r\n1-0:2.8.0*255(0000002.624*kWh)\r\n1-0:31.7.0*255(5.36*A)\r\n\
        1-0:36.7.0*255(1.086*kW)\r\n1-0:33.7.0*255(0.866)\r\n0-0:C.7.0*255(5)\r\n1-0:0.2.0*255(1.03)\r\n0-0:C.1.6*255(FDF5)\r\n!";
    let readout = decode("ISk5MT174-0001", content, &Settings::default());
    assert_eq!(problems(&readout), [""; 0]);
    assert_eq!(readout.meter.as_str(), "ISK:62791737");
    assert_eq!(
        shown(&readout),
        [
            "1-0:1.8.1 register 1798478 Wh",
            "1-0:2.8.0 register 2624 Wh",
            "1-0:31.7.0 instant 5.36 A",
            "1-0:36.7.0 instant 1086 W",
            "1-0:33.7.0 instant 0.866 count",
            "0-0:96.7.0 register 5 count",
        ]
    );
}

/// A MetCom meter of EMH's German form, from the public tests of Runamook/iec_62056-21.
#[test]
fn a_metcom_table_reads_as_the_eye_does() {
    let content = "F.F(00000000)\r\n0.0.0(10067967)\r\n0.0.1(10067967)\r\n0.9.1(202405)\r\n0.9.2(221113)\r\n0.1.0(12)\r\n\
        0.1.2(2211010000)\r\n0.1.2*12(2211010000)\r\n0.1.2*11(2210010000)\r\n1.6.1(0.50262*kW)(2211120730)\r\n\
        1.6.1*12(0.39912*kW)(2210130900)\r\n1.6.1*11(0.74906*kW)(2209281400)\r\n1.8.0(01281.6601*kWh)\r\n";
    let readout = decode("MCS5\\@V0050710000051", content, &Settings::default());
    assert_eq!(problems(&readout), [""; 0]);
    assert_eq!(readout.clock_offset_ms(now()), Some("2022-11-13T19:24:05Z".parse::<UtcMillis>().unwrap().since(now())));
    assert_eq!(
        shown(&readout),
        [
            "1-0:0.1.0 register 12 count",
            "1-0:1.6.1 maximum 502.62 W occurred 2022-11-12T06:30:00Z",
            "1-0:1.6.1*12 billing 399.12 W @2022-10-31T23:00:00Z occurred 2022-10-13T07:00:00Z",
            "1-0:1.6.1*11 billing 749.06 W @2022-09-30T22:00:00Z occurred 2022-09-28T12:00:00Z",
            "1-0:1.8.0 register 1281660.1 Wh",
        ]
    );
}

/// An EasyMeter Q3D on its D0 port, from a public ESPHome component for OBIS meters.
#[test]
fn an_easymeter_push_reads_as_the_eye_does() {
    let content = "1-0:0.0.0*255(0273011003684)\r\n1-0:1.8.0*255(00024234.1010820*kWh)\r\n1-0:21.7.255*255(000071.96*W)\r\n\
        1-0:1.7.255*255(000104.60*W)\r\n1-0:96.5.5*255(82)\r\n0-0:96.1.255*255(1ESY1011003684)\r\n";
    let readout = decode("ESY5Q3DA1004 V3.02", content, &Settings::default());
    assert_eq!(problems(&readout), [""; 0]);
    assert_eq!(readout.meter.as_str(), "1ESY1011003684");
    assert_eq!(
        shown(&readout),
        ["1-0:1.8.0 register 24234101.0820 Wh", "1-0:21.7.255 instant 71.96 W", "1-0:1.7.255 instant 104.60 W",]
    );
}

/// A Pafal 12EC3g, from the public documentation of a home automation's reader; and an Apator NORAX3, u9n/dlms-cosem#37.
#[test]
fn makers_quirks_are_switched_on_by_name() {
    let content = "0.0.0(72044837)(72044837)\r\nF.F(00)(00)\r\n0.2.0(1.29)(1.29)\r\n1.8.0*00(000783.16)(000783.16)\r\n";
    let strict = decode("PAF5EC3g", content, &Settings::default());
    assert_eq!(shown(&strict), [""; 0]);
    assert_eq!(problems(&strict), ["line 4, 1.8.0*00: a value without a unit"]);
    let quirks = ReadQuirks { units_by_code: true, billing_zero_is_current: true, ..ReadQuirks::default() };
    let readout = decode("PAF5EC3g", content, &Settings { quirks, ..Settings::default() });
    assert_eq!(shown(&readout), ["1-0:1.8.0 register 78316e1 Wh"]);

    let content = "0-0:C.1.0(72432595)\r\n0-0:1.0.0(2021-07-12 22:20:17)\r\n1-0:1.8.1(00000000001.329*kWh)\r\n\
        1-0:1.8.1*101(00000000001.329*kWh)\r\n";
    let readout = decode("APA5\\2NORAX30", content, &Settings { stamped_by: StampedBy::Meter, ..Settings::default() });
    assert_eq!(readout.meter.as_str(), "APA:72432595");
    assert_eq!(
        shown(&readout),
        ["1-0:1.8.1 register 1329 Wh @2021-07-12T20:20:17Z", "1-0:1.8.1*101 billing 1329 Wh label-derived",]
    );
    assert_eq!(
        (readout.readings[0].stamped_by, readout.readings[1].stamped_by),
        (StampedBy::Meter, StampedBy::Gateway)
    );
}

#[test]
fn values_become_readings_by_their_code_and_unit() {
    let readout = plain(
        "1.8.0(1*kWh)\r\n1.9.0(2*kWh)\r\n1.2.0(3*kW)\r\n1.4.0(4*kW)\r\n1.7.0(5*kW)\r\n1.6.0(6*kW)(2601151200)\r\n\
         1.3.0(7*kW)(2601151215)\r\n1.29.0(8*kWh)\r\n6-0:6.8(9*GJ)6-0:6.26(10*m3)6-0:6.6(11*kW)\r\n14.7.0(49.9*Hz)\r\n",
    );
    assert_eq!(problems(&readout), [""; 0]);
    assert_eq!(
        shown(&readout),
        [
            "1-0:1.8.0 register 1e3 Wh",
            "1-0:1.9.0 register 2e3 Wh",
            "1-0:1.2.0 register 3e3 W",
            "1-0:1.4.0 instant 4e3 W",
            "1-0:1.7.0 instant 5e3 W",
            "1-0:1.6.0 maximum 6e3 W occurred 2026-01-15T11:00:00Z",
            "1-0:1.3.0 instant 7e3 W occurred 2026-01-15T11:15:00Z",
            "1-0:1.29.0 instant 8e3 Wh",
            "6-0:6.8.0 register 9e9 J",
            "6-0:6.26.0 register 10 m3",
            "6-0:6.6.0 maximum 11e3 W",
            "1-0:14.7.0 instant 49.9 Hz",
        ]
    );
}

#[test]
fn both_kinds_of_billing_values_find_their_stamp() {
    let readout = plain(
        "1.8.0(9*kWh)\r\n1.8.0&07(7*kWh)\r\n1.8.0*06(6)\r\n1.8.0*05(5*kWh)(2601010000)\r\n1.8.0*04(4*kWh)\r\n\
         0.1.2&07(2603150930)\r\n0.1.2*06(2603010000)\r\n",
    );
    assert_eq!(problems(&readout), [""; 0]);
    assert_eq!(
        shown(&readout),
        [
            "1-0:1.8.0 register 9e3 Wh",
            "1-0:1.8.0*7 billing 7e3 Wh @2026-03-15T08:30:00Z",
            "1-0:1.8.0*6 billing 6e3 Wh @2026-02-28T23:00:00Z",
            "1-0:1.8.0*5 billing 5e3 Wh @2025-12-31T23:00:00Z",
            "1-0:1.8.0*4 billing 4e3 Wh label-derived",
        ]
    );
}

// Negative control: leave the mask out of `Context::error`.
#[test]
fn the_error_register_is_an_event_and_spoils_the_values_by_its_mask() {
    let content = "0.0.0(1)\r\n1.8.0(1*kWh)\r\nF.F(00000210)\r\n";
    let readout = decode("SIM5X", content, &Settings::default());
    assert_eq!(shown(&readout), ["1-0:1.8.0 register 1e3 Wh critical-error"]);
    assert_eq!(events(&readout), ["0-0:97.97.0 0x210 \"00000210\" \"\""]);
    let masked = decode("SIM5X", content, &Settings { error_mask: 0xff00_0000, ..Settings::default() });
    assert_eq!(shown(&masked), ["1-0:1.8.0 register 1e3 Wh"]);
    assert_eq!(events(&masked), events(&readout));
    let sound = decode("SIM5X", &content.replace("210", "000"), &Settings::default());
    assert_eq!(shown(&sound), ["1-0:1.8.0 register 1e3 Wh"]);
}

#[test]
fn the_identity_is_where_the_settings_say() {
    let content = "0.0.0(00123)\r\nC.1.0(456)\r\n0.0.9(1EMH0005939068)\r\n1.8.0(1*kWh)\r\n";
    let of = |identity: &[IdentityLine], identification: &str| {
        let assumed_meter = MeterId::new("line-7").ok();
        let settings = Settings { identity: identity.to_vec(), assumed_meter, ..Settings::default() };
        decode(identification, content, &settings).meter.to_string()
    };
    let all = Settings::default().identity;
    assert_eq!(of(&all, "EMH5X"), "1EMH0005939068");
    assert_eq!(of(&[IdentityLine::SerialNumber], "EMH5X"), "EMH:456");
    assert_eq!(of(&[IdentityLine::DeviceAddress, IdentityLine::SerialNumber], "EMH5X"), "EMH:00123");
    assert_eq!(of(&[IdentityLine::DeviceAddress], ""), "00123");
    assert_eq!(of(&[], "EMH5X"), "line-7");
    let nobody = Readout::decode(&block("EMH5X", "0.0.0(00000000)\r\n1.8.0(1*kWh)\r\n"), &Settings::default(), now());
    assert_eq!(nobody, Err(ReadoutError::NoIdentity));
}

#[test]
fn broken_lines_cost_themselves_only() {
    let readout = plain(
        "1.8.1(0000x4.426*kWh)\r\n1.8.2(1*kkWh)\r\n2.8.1(00\r\n1.7.0(1)(2)(3)\r\n1.6.1(1*kW)(x)\r\n1.8.3(1)\r\n\
         2.8.2(99999999999999999999*kWh)\r\n1.8.4(1*kWh)\r\n1.8.4(2*kWh)\r\n1.8.4(1*kWh)\r\n(1)(2)\r\n1.7.1(\x1a)\r\n2.7.0(0.1*kW)\r\n",
    );
    assert_eq!(shown(&readout), ["1-0:1.8.4 register 1e3 Wh", "1-0:2.7.0 instant 1e2 W"]);
    assert_eq!(
        problems(&readout),
        [
            "line 2, 1.8.1: \"0000x4.426*kWh\" is no decimal number",
            "line 3, 1.8.2: \"kkWh\" is no unit",
            "line 4, 2.8.1: the line has no group or unbalanced parentheses",
            "line 5, 1.7.0: 3 groups do not fit",
            "line 6, 1.6.1: \"x\" is no time stamp",
            "line 7, 1.8.3: a value without a unit",
            "line 8, 2.8.2: a value of more than 18 digits does not fit",
            "line 10, 1.8.4: a second value of the same object",
            "line 12: a row without a header",
            "line 13, 1.7.1: the line holds an octet that is not printable",
        ]
    );
    // What does not fit a quantity is not lost.
    let logs: Vec<_> = readout.events.iter().map(|event| &event.log[..]).collect();
    assert_eq!(logs, ["1-0:2.8.2"]);
}

#[test]
fn profiles_and_log_books_may_stand_in_a_read_out() {
    let readout = plain(
        "P.01(0260101001500)(00)(15)(1)(1.5)(kW)\r\n(0.5)\r\n(0.25)\r\n1.8.0(1*kWh)\r\nP.98(0260101120000)(00000080)()(0)\r\n",
    );
    assert_eq!(problems(&readout), [""; 0]);
    assert_eq!(
        shown(&readout),
        [
            "1-0:1.8.0 register 1e3 Wh",
            "1-0:1.5.0 average 5e2 W @2025-12-31T23:15:00Z",
            "1-0:1.5.0 average 25e1 W @2025-12-31T23:30:00Z",
        ]
    );
    assert_eq!(readout.events[0].at, "2026-01-01T11:00:00Z".parse().unwrap());
    assert_eq!(readout.events[0].code, 0x80);
}

#[test]
fn a_clock_without_summer_time_is_a_setting() {
    let content = "0.0.0(1)\r\n1.6.0(1*kW)(2607151200)\r\n";
    let clock = MeterClock::Fixed { offset_minutes: 60 };
    let of = |clock| decode("SIM5X", content, &Settings { clock, ..Settings::default() }).readings[0].occurred_at;
    assert_eq!(of(clock), Some("2026-07-15T11:00:00Z".parse().unwrap()));
    assert_eq!(of(MeterClock::CET), Some("2026-07-15T10:00:00Z".parse().unwrap()));
}
