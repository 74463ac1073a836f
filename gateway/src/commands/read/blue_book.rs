//! Names of the Blue Book (IEC 62056-6-1 and 62056-6-2) for people: of attributes, of OBIS codes.

use protocols::cosem::classes::ClassDescription;
use protocols::metering::ObisCode;

/// Attributes that hold passwords or keys: never asked for, nor written.
const SECRETS: [(u16, i8); 10] =
    [(15, 7), (19, 7), (19, 8), (19, 9), (44, 5), (45, 3), (46, 4), (100, 6), (100, 7), (115, 2)];

pub(super) fn attribute_name(class_id: u16, version: u8, attribute: i8) -> Option<&'static str> {
    ClassDescription::of(class_id, version)?.attribute(attribute)
}

/// The attributes of a class that are known by name, but for its logical name.
pub(super) fn attributes(class_id: u16, version: u8) -> std::ops::RangeInclusive<i8> {
    let count = ClassDescription::of(class_id, version).map_or(1, ClassDescription::attribute_count);
    2..=i8::try_from(count).unwrap_or(i8::MAX)
}

pub(in crate::commands) fn is_secret(class_id: u16, attribute: i8) -> bool {
    SECRETS.contains(&(class_id, attribute))
}

/// Value groups C and D of what no medium owns.
const ABSTRACT: &[((u8, u8), &str)] = &[
    ((1, 0), "clock"),
    ((1, 1), "UNIX clock"),
    ((10, 0), "script table"),
    ((11, 0), "special days table"),
    ((12, 0), "schedule"),
    ((13, 0), "activity calendar"),
    ((14, 0), "register activation"),
    ((15, 0), "single action schedule"),
    ((16, 0), "register monitor"),
    ((16, 1), "alarm monitor"),
    ((17, 0), "limiter"),
    ((19, 0), "payment account"),
    ((20, 0), "IEC optical port setup"),
    ((21, 0), "list of the standard read-out"),
    ((22, 0), "IEC HDLC setup"),
    ((24, 1), "M-Bus client"),
    ((24, 2), "value of an M-Bus meter"),
    ((24, 3), "profile of an M-Bus meter"),
    ((24, 4), "valve of an M-Bus meter"),
    ((24, 5), "log of an M-Bus meter"),
    ((25, 0), "TCP-UDP setup"),
    ((25, 1), "IPv4 setup"),
    ((25, 2), "MAC address"),
    ((25, 3), "PPP setup"),
    ((25, 4), "GPRS modem setup"),
    ((25, 6), "GSM diagnostic"),
    ((25, 7), "IPv6 setup"),
    ((25, 9), "push setup"),
    ((40, 0), "association"),
    ((41, 0), "SAP assignment"),
    ((42, 0), "logical device name"),
    ((43, 0), "security setup"),
    ((43, 1), "invocation counter"),
    ((44, 0), "image transfer"),
    ((96, 1), "device id"),
    ((96, 2), "parameter changes"),
    ((96, 3), "input and output control"),
    ((96, 4), "internal control signals"),
    ((96, 5), "internal operating status"),
    ((96, 6), "battery"),
    ((96, 7), "power failures"),
    ((96, 8), "operating time"),
    ((96, 9), "environment"),
    ((96, 10), "status register"),
    ((96, 11), "event code"),
    ((96, 13), "consumer message"),
    ((96, 14), "active tariff"),
    ((96, 15), "event counter"),
    ((96, 20), "meter tamper"),
    ((97, 97), "error register"),
    ((97, 98), "alarm register"),
    ((98, 1), "data of billing period"),
    ((99, 98), "event log"),
];

/// Value groups C and D of electricity that name no measured quantity.
const ELECTRICITY: &[((u8, u8), &str)] = &[
    ((0, 0), "device id"),
    ((0, 1), "billing period counter"),
    ((0, 2), "program entries"),
    ((0, 3), "output pulse constant"),
    ((0, 4), "transformer ratio"),
    ((0, 8), "measurement period"),
    ((0, 9), "time entries"),
    ((98, 1), "data of billing period"),
    ((99, 1), "load profile 1"),
    ((99, 2), "load profile 2"),
    ((99, 97), "power failure log"),
    ((99, 98), "event log"),
];

/// What an object of this code is about; `None` for codes that are a maker's own, and of media other than electricity.
pub(super) fn obis_name(obis: ObisCode) -> Option<String> {
    let ObisCode([medium, _, c, d, e, _]) = obis;
    let in_table = |table: &[((u8, u8), &str)]| {
        table.iter().find(|((of_c, of_d), _)| (*of_c, *of_d) == (c, d)).map(|(_, name)| (*name).to_owned())
    };
    match medium {
        0 if (c, d, e) == (96, 3, 10) => Some("disconnect control".to_owned()),
        0 => in_table(ABSTRACT),
        1 => in_table(ELECTRICITY).or_else(|| electricity(c, d, e)),
        _ => None,
    }
}

/// A quantity of electricity: what group C measures, what group D makes of it, group E for the tariff.
fn electricity(c: u8, d: u8, e: u8) -> Option<String> {
    let (quantity, phase) = match c {
        1..=20 => (c, ""),
        21..=80 => ((c - 1) % 20 + 1, [" L1", " L2", " L3"][usize::from((c - 21) / 20)]),
        91 => (11, " neutral"),
        92 => (12, " neutral"),
        _ => return None,
    };
    let is_energy = matches!(d, 8 | 9 | 10 | 17..=20 | 29 | 30);
    let power =
        |adjective: &str, what: &str| format!("{adjective} {}{what}", if is_energy { "energy" } else { "power" });
    let name = match quantity {
        1 => power("active", " import"),
        2 => power("active", " export"),
        3 => power("reactive", " import"),
        4 => power("reactive", " export"),
        5..=8 => power("reactive", &format!(" Q{}", quantity - 4)),
        9 => power("apparent", " import"),
        10 => power("apparent", " export"),
        11 => "current".to_owned(),
        12 => "voltage".to_owned(),
        13 => "power factor".to_owned(),
        14 => "frequency".to_owned(),
        15 => power("active", " import and export, sum"),
        16 => power("active", " import and export, difference"),
        _ => return None,
    };
    let of = match d {
        2 => ", cumulative maximum",
        4 => ", current average",
        5 => ", last average",
        6 => ", maximum",
        7 => ", instantaneous",
        8 => "",
        9 => ", since the billing period began",
        29 => ", in the capture period",
        31 => ", lower threshold",
        32 => ", sags",
        35 => ", upper threshold",
        36 => ", swells",
        _ => return None,
    };
    let tariff = match (d, e) {
        (_, 0) => String::new(),
        (7, _) => return None,
        (_, tariff) => format!(", tariff {tariff}"),
    };
    Some(format!("{name}{phase}{of}{tariff}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_attributes_have_the_names_of_the_blue_book() {
        for (code, name) in [
            ("1-0:1.8.0", Some("active energy import")),
            ("1-1:2.8.2", Some("active energy export, tariff 2")),
            ("1-0:32.7.0", Some("voltage L1, instantaneous")),
            ("1-0:71.7.0", Some("current L3, instantaneous")),
            ("1-0:61.7.0", Some("active power import L3, instantaneous")),
            ("1-0:1.6.0", Some("active power import, maximum")),
            ("1-0:99.1.0", Some("load profile 1")),
            ("0-0:42.0.0", Some("logical device name")),
            ("0-1:24.2.1", Some("value of an M-Bus meter")),
            ("0-0:96.3.10", Some("disconnect control")),
            ("1-0:32.7.124", None),
            ("1-0:199.8.0", None),
            ("7-0:3.1.0", None),
        ] {
            assert_eq!(obis_name(code.parse().unwrap()).as_deref(), name, "{code}");
        }
        assert_eq!(
            (attribute_name(3, 0, 3), attribute_name(3, 0, 4), attribute_name(3, 0, -1)),
            (Some("scaler_unit"), None, None)
        );
        assert_eq!((attributes(8, 0), attributes(9_999, 0).count()), (2..=9, 0));
        assert!(is_secret(15, 7) && !is_secret(15, 6));
    }

    #[test]
    fn every_code_has_a_name_or_none() {
        for medium in 0..=2 {
            for c in 0..=u8::MAX {
                for d in 0..=u8::MAX {
                    drop(obis_name(ObisCode::new(medium, 0, c, d, 1, 255)));
                }
            }
        }
    }
}
