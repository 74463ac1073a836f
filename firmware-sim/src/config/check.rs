//! From what is written to what is meant: every setting checked once, each error with a hint where one is known.

use std::path::Path;

use protocols::metering::MeterId;

use super::{Fleet, FleetFile, Group, MeterSection, MqttSection, ProfileSection, PushEvery, Source, Start};
use crate::clock::{DAY_MS, MeterClock, SummerTime, Zone};
use crate::faults::{Fault, FaultRates};
use crate::nearest::{UnknownName, unknown};
use crate::pace::days_back_by_default;
use crate::profile::{Column, ProfileSpec};
use crate::quirks::{Quirk, Quirks};
use crate::replay::bdew::SEASONAL_NAMES;
use crate::rng::Rate;
use crate::speak::Protocol;
use crate::speak::publisher::{BrokerSettings, Secret};

/// Ten times the largest fleet that one process was meant for.
const METERS_MAX: u32 = 100_000;
const SPEED_MAX: f64 = 100_000.0;
const DAYS_MAX: f64 = 3_660.0;
/// Zero would switch the deadlines of the connection off.
const KEEP_ALIVE_S_MIN: u16 = 1;
const INTERVAL_MS_MIN: u64 = 10;
/// A year of one-minute entries.
const DEPTH_MAX: usize = 527_040;
const SOURCES: [&str; 5] = ["household", "uci", "lcl", "bdew-h0 to bdew-l2", "bdew-h25"];

/// What is wrong with the settings, and what may help.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ConfigError {
    pub message: String,
    pub hint: Option<String>,
}

impl ConfigError {
    pub fn new(message: impl Into<String>, hint: Option<String>) -> Self {
        Self { message: message.into(), hint }
    }

    pub(super) fn plain(message: impl Into<String>) -> Self {
        Self::new(message, None)
    }

    pub(super) fn hinted(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::new(message, Some(hint.into()))
    }
}

impl From<UnknownName> for ConfigError {
    fn from(error: UnknownName) -> Self {
        Self { message: error.to_string(), hint: error.hint }
    }
}

impl FleetFile {
    pub fn check(&self) -> Result<Fleet, ConfigError> {
        if !(self.speed > 0.0 && self.speed <= SPEED_MAX) {
            return Err(ConfigError::plain(format!("speed {} is not above 0 and at most {SPEED_MAX}", self.speed)));
        }
        let history_ms = days_ms("history_days", self.history_days)?;
        let mut next_number = 1;
        let mut groups: Vec<Group> = Vec::with_capacity(self.meters.len());
        for (index, section) in self.meters.iter().enumerate() {
            let in_section = |error: ConfigError| ConfigError {
                message: format!("meters section {}: {}", index + 1, error.message),
                ..error
            };
            let group = section.check(next_number).map_err(in_section)?;
            next_number = group.numbers.end;
            let overlaps = |other: &Group| {
                other.manufacturer == group.manufacturer
                    && other.numbers.start < group.numbers.end
                    && group.numbers.start < other.numbers.end
            };
            if groups.iter().any(overlaps) {
                let hint = "leave first_number out to count on from the section before";
                let message = format!("numbers {:?} are taken by another section", group.numbers);
                return Err(in_section(ConfigError::hinted(message, hint)));
            }
            groups.push(group);
        }
        let total: u64 = groups.iter().map(|group| group.numbers.len() as u64).sum();
        if total == 0 {
            let hint = "add a [[meters]] section, or give --meters N --protocol cad";
            return Err(ConfigError::hinted("the fleet has no meters", hint));
        }
        if total > u64::from(METERS_MAX) {
            return Err(ConfigError::plain(format!("{total} meters are more than {METERS_MAX}")));
        }
        Ok(Fleet {
            seed: self.seed,
            speed: self.speed,
            start: self.start()?,
            history_ms,
            truth: self.truth.clone(),
            broker: self.mqtt.check()?,
            queue_per_meter_max: self.mqtt.queue_per_meter_max.max(1),
            groups,
        })
    }

    fn start(&self) -> Result<Start, ConfigError> {
        match (&self.start_at, self.days_back) {
            (Some(_), Some(_)) => Err(ConfigError::hinted("both start_at and days_back are set", "keep one of them")),
            (Some(text), None) => {
                let at = text.parse().map_err(|error| ConfigError::plain(format!("start_at: {error}")))?;
                Ok(Start::At(at))
            }
            (None, Some(days)) => days_ms("days_back", days).map(|_| Start::DaysBack(days)),
            (None, None) => Ok(Start::DaysBack(days_back_by_default(self.speed))),
        }
    }
}

fn days_ms(key: &str, days: f64) -> Result<i64, ConfigError> {
    if (0.0..=DAYS_MAX).contains(&days) {
        Ok((days * DAY_MS as f64) as i64)
    } else {
        Err(ConfigError::plain(format!("{key} {days} is not from 0 to {DAYS_MAX}")))
    }
}

impl MqttSection {
    fn check(&self) -> Result<BrokerSettings, ConfigError> {
        let parts = self.broker.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse::<u16>().ok()?)));
        let Some((host, port)) = parts.filter(|(host, _)| !host.is_empty()) else {
            let message = format!("broker {:?} is no host and port", self.broker);
            return Err(ConfigError::hinted(message, "write it as 127.0.0.1:1883"));
        };
        if self.keep_alive_s < KEEP_ALIVE_S_MIN {
            let message = format!("keep_alive_s {} is below {KEEP_ALIVE_S_MIN}", self.keep_alive_s);
            return Err(ConfigError::plain(message));
        }
        let password = self.password_file.as_deref().map(password).transpose()?;
        Ok(BrokerSettings {
            host: host.trim_start_matches('[').trim_end_matches(']').to_owned(),
            port,
            client_id: self.client_id.clone(),
            keep_alive_s: self.keep_alive_s,
            user_name: self.user_name.clone(),
            password,
        })
    }
}

pub(super) fn password(path: &Path) -> Result<Secret, ConfigError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Secret(text.trim_end_matches(['\n', '\r']).to_owned())),
        Err(error) => Err(ConfigError::plain(format!("password_file {}: {error}", path.display()))),
    }
}

impl MeterSection {
    fn check(&self, next_number: u32) -> Result<Group, ConfigError> {
        if !(self.manufacturer.len() == 3 && self.manufacturer.bytes().all(|byte| byte.is_ascii_uppercase())) {
            let message = format!("manufacturer {:?} is not three capital letters", self.manufacturer);
            return Err(ConfigError::plain(message));
        }
        let first = self.first_number.unwrap_or(next_number);
        let end = first.checked_add(self.count).filter(|_| self.count <= METERS_MAX);
        let end = end.ok_or_else(|| ConfigError::plain(format!("count {} is above {METERS_MAX}", self.count)))?;
        if self.protocol.is_empty() {
            let known = Protocol::ALL.map(|(_, name)| name).join(", ");
            return Err(ConfigError::hinted("protocol is missing", format!("one of: {known}")));
        }
        let protocol = self.protocol.parse::<Protocol>()?;
        if self.drift_ppm_max > MeterClock::DRIFT_PPM_MAX.unsigned_abs() {
            let message = format!("drift_ppm_max {} is above {}", self.drift_ppm_max, MeterClock::DRIFT_PPM_MAX);
            return Err(ConfigError::plain(message));
        }
        let quirks = self.quirks.iter().map(|name| name.parse::<Quirk>()).collect::<Result<Vec<_>, _>>()?;
        let mut quirks = Quirks::of(quirks);
        // Their telegrams have six digits of kWh.
        quirks.six_digit_display |= matches!(protocol, Protocol::P1 | Protocol::D0 | Protocol::Iec62056_21);
        Ok(Group {
            numbers: first..end,
            manufacturer: self.manufacturer.clone(),
            protocol,
            source: self.source()?,
            solar_peak_w: self.solar_peak_w,
            annual_kwh: self.annual_kwh,
            push_every: if protocol.pushes_at_port() { self.telegram_every(protocol)? } else { self.push_every()? },
            drift_ppm_max: self.drift_ppm_max,
            zone: zone(&self.zone)?,
            quirks,
            faults: self.fault_rates(protocol)?,
            // Those that nobody can read would only take memory.
            profiles: self.profiles(protocol)?,
            line: self.line(protocol)?,
        })
    }

    fn profiles(&self, protocol: Protocol) -> Result<Vec<ProfileSpec>, ConfigError> {
        if matches!(protocol, Protocol::Mbus | Protocol::Wmbus) && self.medium == "electricity" {
            return Ok(vec![ProfileSpec::monthly_billing(crate::speak::mbus::FROZEN_MAX)]);
        }
        if protocol == Protocol::DlmsNotify {
            // It pushes no other.
            let mut profiles = self.profile.check()?;
            profiles.truncate(1);
            return Ok(profiles);
        }
        if !protocol.carries_profiles() {
            return Ok(Vec::new());
        }
        let mut profiles = self.profile.check()?;
        if protocol == Protocol::Iec62056_21 {
            // Nobody can read the others, and a profile states its period in minutes.
            profiles.truncate(1);
            if !self.profile.capture_period_s.is_multiple_of(60) {
                let message = format!("capture_period_s {} is no number of minutes", self.profile.capture_period_s);
                return Err(ConfigError::plain(message));
            }
        }
        Ok(profiles)
    }

    fn source(&self) -> Result<Source, ConfigError> {
        let file = || {
            let message = format!("source {:?} needs a data_file", self.source);
            self.data_file.clone().ok_or_else(|| ConfigError::plain(message))
        };
        let seasonal = self.source.strip_prefix("bdew-");
        let seasonal = seasonal.and_then(|name| SEASONAL_NAMES.into_iter().find(|known| *known == name));
        match (self.source.as_str(), seasonal) {
            ("household", _) if self.data_file.is_some() => {
                Err(ConfigError::plain("source \"household\" has no data_file"))
            }
            ("household", _) => Ok(Source::Household),
            ("uci", _) => Ok(Source::Uci { file: self.data_file.clone() }),
            ("lcl", _) => Ok(Source::Lcl { file: file()? }),
            ("bdew-h25", _) => Ok(Source::BdewH25 { file: file()? }),
            (_, Some(name)) => Ok(Source::BdewSeasonal { name, file: file()? }),
            (_, None) => Err(unknown("source", &self.source, SOURCES).into()),
        }
    }

    pub(super) fn push_every(&self) -> Result<PushEvery, ConfigError> {
        match (self.interval_ms, self.interval_s) {
            (Some(_), Some(_)) => Err(ConfigError::hinted(
                "both interval_ms and interval_s are set",
                "interval_ms is by the wall clock, interval_s by the meter's time: keep one of them",
            )),
            (Some(ms), None) if ms < INTERVAL_MS_MIN => {
                Err(ConfigError::plain(format!("interval_ms {ms} is below {INTERVAL_MS_MIN}")))
            }
            (Some(ms), None) => Ok(PushEvery::WallMs(ms)),
            (None, Some(0)) => Err(ConfigError::plain("interval_s 0 is below 1")),
            (None, Some(seconds)) => Ok(PushEvery::MeterS(seconds)),
            (None, None) => Ok(PushEvery::MeterS(10)),
        }
    }

    fn fault_rates(&self, protocol: Protocol) -> Result<FaultRates, ConfigError> {
        let mut rates = FaultRates::default();
        for (name, rate) in &self.faults {
            let fault = name.parse::<Fault>()?;
            let max = fault.rate_max();
            let Some(rate) = Rate::from_f64(*rate, max) else {
                let per = if fault.is_of_meter() { "a mean count per day" } else { "a chance per message" };
                return Err(ConfigError::hinted(
                    format!("fault {name} has rate {rate}"),
                    format!("it is {per}, from 0 to {max}"),
                ));
            };
            if !protocol.suffers(fault) {
                let all = Fault::ALL.into_iter().filter(|(fault, _)| protocol.suffers(*fault));
                let hint = format!("it suffers: {}", all.map(|(_, name)| name).collect::<Vec<_>>().join(", "));
                let message = format!("fault {name} cannot show in protocol {}", protocol.name());
                return Err(ConfigError::hinted(message, hint));
            }
            let is_of_register = matches!(fault, Fault::StuckRegister | Fault::CounterReset);
            let is_mbus = matches!(protocol, Protocol::Mbus | Protocol::Wmbus);
            if is_mbus && self.medium != "electricity" && is_of_register {
                let message = format!(
                    "fault {name} has nothing to strike: the register of {} is a function of the hour",
                    self.medium
                );
                return Err(ConfigError::hinted(message, "set medium = \"electricity\", or leave it out"));
            }
            if fault.is_of_security() && self.security.is_none() {
                let message = format!("fault {name} has nothing to strike");
                return Err(ConfigError::hinted(message, "add [meters.security]"));
            }
            let needs_check = !fault.is_of_meter() && !matches!(fault, Fault::Silence | Fault::SlowAnswers);
            if protocol == Protocol::D0 && !self.block_check && needs_check {
                let message = format!("fault {name} would alter values unseen");
                return Err(ConfigError::hinted(message, "set block_check = true"));
            }
            rates = rates.with(fault, rate);
        }
        Ok(rates)
    }
}

fn zone(name: &str) -> Result<Zone, ConfigError> {
    let european = |standard_offset_min| Zone { standard_offset_min, summer_time: SummerTime::EuropeanUnion };
    match name {
        "UTC" => Ok(Zone::UTC),
        "WET" => Ok(european(0)),
        "CET" => Ok(european(60)),
        "EET" => Ok(european(120)),
        _ => Err(unknown("zone", name, ["UTC", "WET", "CET", "EET"]).into()),
    }
}

impl ProfileSection {
    fn check(&self) -> Result<Vec<ProfileSpec>, ConfigError> {
        let period_s = self.capture_period_s;
        if period_s == 0 || 86_400 % period_s != 0 {
            let message = format!("capture_period_s {period_s} does not divide the day");
            return Err(ConfigError::hinted(message, "900 and 3600 are usual"));
        }
        let deepest = self.depth_entries.max(self.daily_depth_entries).max(self.monthly_depth_entries);
        if self.depth_entries == 0 || deepest > DEPTH_MAX {
            return Err(ConfigError::plain(format!("a profile depth is not from 1 to {DEPTH_MAX} entries")));
        }
        let columns = self.columns.iter().map(|name| {
            let column = Column::ALL.into_iter().find(|column| column.name() == name);
            column.ok_or_else(|| unknown("column", name, Column::ALL.map(Column::name)))
        });
        let columns = columns.collect::<Result<Vec<_>, _>>()?;
        if columns.is_empty() || (1..columns.len()).any(|index| columns[..index].contains(&columns[index])) {
            return Err(ConfigError::plain("profile columns are empty or named twice"));
        }
        let mut profiles = vec![ProfileSpec::load(period_s, self.depth_entries, columns)];
        if self.daily_depth_entries > 0 {
            profiles.push(ProfileSpec::daily_billing(self.daily_depth_entries));
        }
        if self.monthly_depth_entries > 0 {
            profiles.push(ProfileSpec::monthly_billing(self.monthly_depth_entries));
        }
        Ok(profiles)
    }
}

/// The id of a group's meter, as the device itself reports it.
pub(crate) fn meter_id(manufacturer: &str, number: u32) -> MeterId {
    MeterId::new(&format!("{manufacturer}:{number:06}")).expect("three letters, a colon and digits are a meter id")
}
