//! Settings that mean something for some protocols only. In a section of another they are refused: nobody would act on them.

use serde::Serialize;
use toml::{Table, Value};

use super::ConfigError;
use super::metering::{LineSection, MeterProtocol, MeterSection, PortProtocol, PortSection, value};

/// Keys, and the protocols that they are for. Those that stand in no row are for all.
type Rows<P> = &'static [(&'static [&'static str], &'static [P])];

const METERS: Rows<MeterProtocol> = {
    use MeterProtocol::{DlmsHdlc, DlmsWrapper, Iec62056_21, Mbus};
    &[
        (
            &[
                "authentication",
                "referencing",
                "association",
                "security_policy",
                "security_suite",
                "ciphering",
                "signing",
                "authentication_key_file",
                "key_encrypting_key_file",
                "signing_key_file",
                "meter_public_key_file",
                "agreement_key_file",
                "meter_agreement_key_file",
                "meter_ca_file",
                "client_title",
                "meter_title",
                "challenge_octets",
                "counter_from_meter",
                "counter_object",
                "counter_client",
                "status_bits",
                "status_columns",
                "client",
                "server",
            ],
            &[DlmsWrapper, DlmsHdlc],
        ),
        (&["physical", "address_octets"], &[DlmsHdlc]),
        (&["password_file"], &[DlmsWrapper, DlmsHdlc, Iec62056_21]),
        (&["encryption_key_file"], &[DlmsWrapper, DlmsHdlc, Mbus]),
        (&["address", "initial_baud", "line_quirks"], &[Iec62056_21, Mbus]),
        (
            &[
                "baud_max",
                "readout_character",
                "wake_up_ms",
                "change_over_ms",
                "read_command",
                "profile_command",
                "stamp_form",
                "full_codes",
            ],
            &[Iec62056_21],
        ),
        (&["application_reset"], &[Mbus]),
    ]
};

const PORTS: Rows<PortProtocol> = {
    use PortProtocol::{D0, Dlms, P1, Sml};
    &[
        (&["masked_parity"], &[D0]),
        (&["accept_invalid_crc"], &[P1, Sml, D0]),
        (&["quirks"], &[Sml, D0]),
        (&["tcp_listen", "udp_listen", "framing", "scaling", "utc_offset_minutes", "daylight_saving_minutes"], &[Dlms]),
        (&["encryption_key_file", "authentication_key_file", "system_title", "accept_unauthenticated"], &[P1, Dlms]),
    ]
};

/// Of a line, as its meters are.
const LINES: Rows<MeterProtocol> = &[
    (&["echo"], &[MeterProtocol::Iec62056_21, MeterProtocol::Mbus]),
    (&["masked_parity"], &[MeterProtocol::Iec62056_21]),
    (&["udp"], &[MeterProtocol::DlmsWrapper]),
];

/// Before what the section leaves out is filled in.
pub(super) fn refuse_of_meter(at: &str, section: &MeterSection) -> Result<(), ConfigError> {
    refuse(at, section, &MeterSection::default(), METERS, &[section.protocol])
}

/// Before what the section leaves out is filled in.
pub(super) fn refuse_of_port(at: &str, section: &PortSection) -> Result<(), ConfigError> {
    refuse(at, section, &PortSection::default(), PORTS, &[section.protocol])
}

pub(super) fn refuse_of_line(at: &str, section: &LineSection, spoken: &[MeterProtocol]) -> Result<(), ConfigError> {
    refuse(at, section, &LineSection::default(), LINES, spoken)
}

/// The first key that is other than by default, and is for none of the protocols that are spoken.
fn refuse<S: Serialize, P: Copy + PartialEq + Serialize>(
    at: &str,
    section: &S,
    default: &S,
    rows: Rows<P>,
    spoken: &[P],
) -> Result<(), ConfigError> {
    let table = |section: &S| Table::try_from(section).map_err(|error| value(at, error.to_string(), ""));
    let (written, default) = (table(section)?, table(default)?);
    for (keys, protocols) in rows.iter().filter(|(_, protocols)| !spoken.iter().any(|one| protocols.contains(one))) {
        if let Some(key) = keys.iter().find(|key| written.get(**key) != default.get(**key)) {
            let names: Vec<String> =
                protocols.iter().filter_map(|one| Some(Value::try_from(one).ok()?.to_string())).collect();
            let (plural, hint) = match &*names {
                [only] => ("", format!("set protocol = {only}, or remove it")),
                _ => ("s", "set protocol to one of them, or remove it".to_owned()),
            };
            return Err(value(at, format!("{key} is a setting of protocol{plural} {}", names.join(", ")), &hint));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A key that is misspelt here would never be refused.
    #[test]
    fn every_key_is_one_of_its_section() {
        fn known<S: serde::de::DeserializeOwned>(key: &str) -> bool {
            let wrong: Table = format!("{key} = {{ no = {{ such = \"value\" }} }}").parse().unwrap();
            let Err(error) = wrong.try_into::<S>() else { panic!("{key} takes anything") };
            !error.to_string().contains("unknown field")
        }
        let keys = |rows: Rows<MeterProtocol>| rows.iter().flat_map(|(keys, _)| *keys);
        for key in keys(METERS) {
            assert!(known::<MeterSection>(key), "{key}");
        }
        for key in keys(LINES) {
            assert!(known::<LineSection>(key), "{key}");
        }
        for key in PORTS.iter().flat_map(|(keys, _)| *keys) {
            assert!(known::<PortSection>(key), "{key}");
        }
    }
}
