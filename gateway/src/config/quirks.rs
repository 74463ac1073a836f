//! Quirks by the names that they have in their protocol.

use std::collections::BTreeMap;

use protocols::iec62056_21::{ClientQuirks, ReadQuirks};
use protocols::{mbus, sml};

use super::ConfigError;
use super::metering::value;

/// Name and switch.
type Quirk<Q> = (&'static str, fn(&mut Q) -> &mut bool);

pub(super) const SML: &[Quirk<sml::Quirks>] = &[
    ("kermit_crc", |quirks| &mut quirks.kermit_crc),
    ("bare_time", |quirks| &mut quirks.bare_time),
    ("local_time_under_any_choice", |quirks| &mut quirks.local_time_under_any_choice),
    ("unset_clock", |quirks| &mut quirks.unset_clock),
    ("four_fill_octets", |quirks| &mut quirks.four_fill_octets),
    ("dzg_short_power", |quirks| &mut quirks.dzg_short_power),
    ("power_sign_from_status", |quirks| &mut quirks.power_sign_from_status),
    ("list_length_by_content", |quirks| &mut quirks.list_length_by_content),
];

/// Of data lines of IEC 62056-21.
pub(super) const LINES: &[Quirk<ReadQuirks>] = &[
    ("sign_padding", |quirks| &mut quirks.sign_padding),
    ("billing_inherits_unit", |quirks| &mut quirks.billing_inherits_unit),
    ("doubled_groups", |quirks| &mut quirks.doubled_groups),
    ("billing_zero_is_current", |quirks| &mut quirks.billing_zero_is_current),
    ("units_by_code", |quirks| &mut quirks.units_by_code),
    ("unit_without_asterisk", |quirks| &mut quirks.unit_without_asterisk),
];

/// Of a conversation by IEC 62056-21, as far as it does not leave the line to HDLC.
pub(super) const CONVERSATION: &[Quirk<ClientQuirks>] = &[
    ("ignores_rate", |quirks| &mut quirks.ignores_rate),
    ("accept_invalid_bcc", |quirks| &mut quirks.accept_invalid_bcc),
    ("any_answer_address", |quirks| &mut quirks.any_answer_address),
    ("acknowledge_readout", |quirks| &mut quirks.acknowledge_readout),
];

pub(super) const MBUS: &[Quirk<mbus::Quirks>] = &[
    ("length_overflow", |quirks| &mut quirks.length_overflow),
    ("season_by_calendar", |quirks| &mut quirks.season_by_calendar),
    ("maker_extensions", |quirks| &mut quirks.maker_extensions),
];

/// Switches the quirks that are known by these names, and fills in the others, so that what is printed is what is done. The names
/// are those of one protocol or of a part of it: [`refuse_unknown`] sees to the rest.
pub(super) fn switch<Q: Default>(named: &mut BTreeMap<String, bool>, known: &[Quirk<Q>]) -> Q {
    let mut quirks = Q::default();
    for (name, switch) in known {
        let switch = switch(&mut quirks);
        *switch = *named.entry((*name).to_owned()).or_insert(*switch);
    }
    quirks
}

/// Refuses a name that is none of `known`.
pub(super) fn refuse_unknown<'k>(
    at: &str,
    named: &BTreeMap<String, bool>,
    known: impl Iterator<Item = &'k str>,
) -> Result<(), ConfigError> {
    let known: Vec<&str> = known.collect();
    let Some(name) = named.keys().find(|name| !known.contains(&name.as_str())) else { return Ok(()) };
    Err(value(at, format!("{name:?} is no quirk of its protocol"), &format!("one of {}", known.join(", "))))
}
