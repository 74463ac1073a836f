//! Query parameters, each refused with what was expected instead.

use std::fmt::Display;
use std::str::FromStr;

use actix_web::web::Query;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use protocols::metering::{Code, Day, Kind, MeterId, Series, UtcMillis};

use super::ApiError;
use crate::completeness::{Window, find_zone};

pub const INSTANT: &str = "an instant such as 2026-03-29T00:00:00Z or 2026-03-29T02:00:00+02:00 (in a URL + is %2B)";
pub const DAY: &str = "a day such as 2026-03-29";
const KINDS: &str = "one of register, interval, average, maximum, instant, billing";

/// Each parameter at most once, none that the route does not know; an empty one counts as not given.
pub struct Params(Vec<(String, String)>);

impl Params {
    pub fn parse(query: &str, known: &[&str]) -> Result<Self, ApiError> {
        let given = Query::<Vec<(String, String)>>::from_query(query)
            .map_err(|error| ApiError::parameter(error.to_string(), "name=value&name=value, percent-encoded"))?;
        let given: Vec<_> = given.into_inner().into_iter().filter(|(_, value)| !value.is_empty()).collect();
        for (index, (name, _)) in given.iter().enumerate() {
            if !known.contains(&name.as_str()) {
                let hint =
                    format!("known here: {}", if known.is_empty() { "none".to_owned() } else { known.join(", ") });
                return Err(ApiError::parameter(format!("unknown parameter {:?}", short(name)), hint));
            }
            if given.iter().take(index).any(|(other, _)| other == name) {
                return Err(ApiError::parameter(format!("{name} is given twice"), "give it once"));
            }
        }
        Ok(Self(given))
    }

    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    pub fn optional<T: FromStr<Err: Display>>(&self, name: &str, expected: &str) -> Result<Option<T>, ApiError> {
        let parse = |text: &str| {
            text.parse().map_err(|_| ApiError::parameter(format!("{name}={} is not valid", short(text)), expected))
        };
        self.text(name).map(parse).transpose()
    }

    pub fn required<T: FromStr<Err: Display>>(&self, name: &str, expected: &str) -> Result<T, ApiError> {
        let missing = || ApiError::parameter(format!("{name} is missing"), expected);
        self.optional(name, expected)?.ok_or_else(missing)
    }

    /// A whole number in `1..=max`.
    pub fn limit(&self, default: usize, max: usize) -> Result<usize, ApiError> {
        let expected = format!("a whole number from 1 to {max}");
        match self.optional::<usize>("limit", &expected)? {
            None => Ok(default),
            Some(limit) if (1..=max).contains(&limit) => Ok(limit),
            Some(limit) => Err(ApiError::parameter(format!("limit={limit} is out of range"), expected)),
        }
    }

    pub fn zone(&self, default: &TimeZone) -> Result<TimeZone, ApiError> {
        match self.text("tz") {
            Some(name) => Ok(find_zone(name)?),
            None => Ok(default.clone()),
        }
    }

    pub fn day(&self, default: Day) -> Result<Day, ApiError> {
        Ok(self.optional("day", DAY)?.unwrap_or(default))
    }

    pub fn series(&self) -> Result<Series, ApiError> {
        let meter: MeterId = self.required("meter", "the id of a meter; GET /v1/meters lists them")?;
        let code: Code = self.required("code", "an OBIS code such as 1-0:1.8.0, or source:name")?;
        let kind: Kind = self.required("kind", KINDS)?;
        let period_s: Option<u32> = self.optional("period_s", "whole seconds")?;
        let period_s = match (kind.has_period(), period_s) {
            (true, Some(period_s)) if period_s > 0 => period_s,
            (true, _) => {
                let hint = format!("seconds, such as 900; GET /v1/meters/{meter} lists the series");
                return Err(ApiError::parameter(format!("a series of kind {kind} needs period_s"), hint));
            }
            (false, None | Some(0)) => 0,
            (false, Some(_)) => {
                let error = format!("a series of kind {kind} has no period");
                return Err(ApiError::parameter(error, "leave period_s out"));
            }
        };
        Ok(Series { meter, code, kind, period_s })
    }

    /// `day`, or `from` and `to` (which is now when not given).
    pub fn window(&self, zone: &TimeZone, now: UtcMillis) -> Result<Window, ApiError> {
        let day: Option<Day> = self.optional("day", DAY)?;
        let (from, to) = (self.optional("from", INSTANT)?, self.optional("to", INSTANT)?);
        match (day, from, to) {
            (Some(day), None, None) => Ok(Window::of_day(day, zone)?),
            (None, Some(from), to) => {
                let to = to.unwrap_or(now);
                if from > to {
                    let error = format!("from={from} is after to={to}");
                    return Err(ApiError::parameter(error, "give the earlier instant as from"));
                }
                Ok(Window { from, to })
            }
            (Some(_), ..) => {
                Err(ApiError::parameter("day and from or to are given", "give either day, or from and to"))
            }
            (None, None, _) => Err(ApiError::parameter(
                "neither day nor from is given",
                format!("give day and tz, or from and to: {INSTANT}"),
            )),
        }
    }
}

fn short(text: &str) -> String {
    text.chars().take(80).collect()
}

/// Where a page ended: behind this instant and `nth`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct After(pub UtcMillis, pub u8);

impl Display for After {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.0.0, self.1)
    }
}

impl FromStr for After {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let (at, nth) = text.split_once('.')?;
            Some(Self(UtcMillis(at.parse().ok()?), nth.parse().ok()?))
        };
        parse().ok_or("no cursor")
    }
}

/// RFC 3339 with the zone's offset at that instant, milliseconds only when there are any.
pub fn local(at: UtcMillis, zone: &TimeZone) -> String {
    match Timestamp::from_millisecond(at.0) {
        Ok(timestamp) => timestamp.to_zoned(zone.clone()).strftime("%Y-%m-%dT%H:%M:%S%.f%:z").to_string(),
        // Beyond the calendar that the zones know; no reading has such an instant.
        Err(_) => at.to_string(),
    }
}

/// The local day at `now`.
pub fn today(now: UtcMillis, zone: &TimeZone) -> Day {
    let Ok(timestamp) = Timestamp::from_millisecond(now.0) else { return now.day() };
    let date = timestamp.to_zoned(zone.clone()).date();
    Day::from_civil(i32::from(date.year()), date.month().cast_unsigned(), date.day().cast_unsigned())
}
