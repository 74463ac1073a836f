//! Meters that speak IEC 62056-21: what the keys of their sections mean once they hold together.

use std::sync::Arc;

use protocols::iec62056_21::{
    Baud, ClientConfig, DeviceAddress, LocalTime, MeterClock, Password, ProfileLabel, ReadLevel, Settings, StampForm,
};

use super::metering::{
    Addressing, CallSettings, LineSection, MediumSettings, MeterSection, QuirksSection, StampFormName, value,
};
use super::quirks::{CONVERSATION, LINES, refuse_unknown, switch};
use super::{ConfigError, read_secret};

const READOUT_CHARACTERS: [char; 5] = ['0', '6', '7', '8', '9'];

impl From<StampFormName> for StampForm {
    fn from(name: StampFormName) -> Self {
        match name {
            StampFormName::Zst10 => Self::Zst10,
            StampFormName::Zst11 => Self::Zst11,
            StampFormName::Zst12 => Self::Zst12,
            StampFormName::Zst13 => Self::Zst13,
        }
    }
}

/// Fills in what the section leaves out, so that what is printed is what is done.
pub(super) fn check_call(
    at: &str,
    section: &mut MeterSection,
    line: Option<(&LineSection, &MediumSettings)>,
) -> Result<Addressing, ConfigError> {
    let other = QuirksSection { label_at_start: false, ..section.quirks };
    if other != QuirksSection::default() {
        let hint = "those of IEC 62056-21 are label_at_start and line_quirks";
        return Err(value(at, "a quirk of DLMS is set", hint));
    }
    let text = section.address.get_or_insert_default();
    let address = DeviceAddress::new(text).map_err(|error| value(at, error.to_string(), ""))?;
    let names = CONVERSATION.iter().map(|(name, _)| *name).chain(LINES.iter().map(|(name, _)| *name));
    refuse_unknown(at, &section.line_quirks, names)?;
    let (initial_baud, baud_max) = rates(at, section, line.map(|(_, medium)| medium))?;
    let client = ClientConfig {
        readout_character: readout_character(at, section)?,
        initial_baud,
        baud_max,
        masked_parity: line.is_some_and(|(line, _)| line.masked_parity),
        echo: line.is_some_and(|(line, _)| line.echo),
        wake_up_ms: section.wake_up_ms,
        change_over_ms: section.change_over_ms,
        quirks: switch(&mut section.line_quirks, CONVERSATION),
        ..ClientConfig::new(address)
    };
    let lines = Settings {
        clock: meter_clock(at, section)?,
        profile_label: if section.quirks.label_at_start { ProfileLabel::Start } else { ProfileLabel::End },
        quirks: switch(&mut section.line_quirks, LINES),
        ..Settings::default()
    };
    let password = section.password_file.as_deref().map(read_secret).transpose()?;
    let password = password.map(|text| {
        let plain = std::str::from_utf8(&text).ok().and_then(|text| Password::plain(text).ok());
        plain.ok_or_else(|| {
            value(
                at,
                "password_file holds no password of programming mode",
                "up to 64 printable characters other than / ! ( )",
            )
        })
    });
    Ok(Addressing::Iec62056_21(Arc::new(CallSettings {
        client,
        password: password.transpose()?,
        lines,
        read_command: command(at, "read_command", *section.read_command.get_or_insert(1))?,
        profile_command: command(at, "profile_command", *section.profile_command.get_or_insert(5))?,
        stamp_form: (*section.stamp_form.get_or_insert(StampFormName::Zst13)).into(),
        full_codes: *section.full_codes.get_or_insert(false),
    })))
}

fn rates(at: &str, section: &mut MeterSection, medium: Option<&MediumSettings>) -> Result<(Baud, Baud), ConfigError> {
    let rate = |key: &str, bits_per_second: u32| {
        let known = Baud::ALL.into_iter().find(|baud| baud.bits_per_second() == bits_per_second);
        known.ok_or_else(|| {
            let all = Baud::ALL.map(|baud| baud.bits_per_second().to_string()).join(", ");
            value(at, format!("{key} = {bits_per_second} is no rate of IEC 62056-21"), &format!("one of {all}"))
        })
    };
    let initial = rate("initial_baud", *section.initial_baud.get_or_insert(300))?;
    let is_tcp = matches!(medium, Some(MediumSettings::Tcp { .. }));
    let fastest = if is_tcp { initial } else { Baud::B19200 };
    let baud_max = rate("baud_max", *section.baud_max.get_or_insert(fastest.bits_per_second()))?;
    if is_tcp && baud_max > initial {
        let hint = "leave baud_max out, and set initial_baud to the rate of the serial device server";
        return Err(value(at, "nobody can change the rate behind a TCP endpoint", hint));
    }
    Ok((initial, baud_max))
}

fn readout_character(at: &str, section: &mut MeterSection) -> Result<u8, ConfigError> {
    let character = *section.readout_character.get_or_insert('0');
    if READOUT_CHARACTERS.contains(&character) {
        return Ok(character as u8);
    }
    Err(value(at, format!("readout_character {character:?} asks for no read-out"), "\"0\", or \"6\" to \"9\""))
}

/// Of a meter whose stamps do not say their zone.
pub(super) fn meter_clock(at: &str, section: &MeterSection) -> Result<MeterClock, ConfigError> {
    let minutes = i32::from(section.utc_offset_minutes);
    match section.daylight_saving_minutes {
        0 => Ok(MeterClock::Fixed { offset_minutes: minutes }),
        60 => Ok(MeterClock::Summer(LocalTime { standard_offset_minutes: minutes })),
        other => Err(value(at, format!("daylight_saving_minutes = {other} is neither 0 nor 60"), "")),
    }
}

fn command(at: &str, key: &str, number: u8) -> Result<ReadLevel, ConfigError> {
    let level = ReadLevel::from_digit(b'0'.saturating_add(number));
    level.ok_or_else(|| value(at, format!("{key} = {number} is no read command"), "1 to 6"))
}

#[cfg(test)]
mod tests;
