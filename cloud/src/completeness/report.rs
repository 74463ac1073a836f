//! The completeness of a day, for people, machines and the page's first line.

use std::fmt;

use protocols::metering::{Day, MeterId};
use protocols::uplink::GatewayId;
use serde_json::{Value, json};

use super::{SeriesReport, Window};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MeterReport {
    /// As configured.
    pub name: String,
    /// Once it is known.
    pub meter: Option<MeterId>,
    pub gateway: GatewayId,
    /// Every gateway at which it answers now: more than one is an alarm.
    pub seen_by: Vec<GatewayId>,
    pub is_complete: bool,
    /// Why it needs attention; `None` when it does not.
    pub cause: Option<String>,
    pub series: Vec<SeriesReport>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompletenessReport {
    pub day: Day,
    pub zone: String,
    /// Cut off at the present when the day is not over.
    pub window: Window,
    pub day_is_over: bool,
    pub meters: Vec<MeterReport>,
}

impl CompletenessReport {
    pub fn complete(&self) -> usize {
        self.meters.iter().filter(|meter| meter.is_complete).count()
    }

    pub fn need_attention(&self) -> impl Iterator<Item = &MeterReport> {
        self.meters.iter().filter(|meter| meter.cause.is_some())
    }

    pub fn expected(&self) -> u64 {
        self.series().map(|series| series.expected).sum()
    }

    pub fn held(&self) -> u64 {
        self.series().map(|series| series.held).sum()
    }

    /// Of the expected readings; 100 when nothing was expected.
    pub fn percent(&self) -> f64 {
        let expected = self.expected();
        if expected == 0 { 100.0 } else { self.held() as f64 * 100.0 / expected as f64 }
    }

    /// 100 means every meter: one that never said what to expect of it is not complete either.
    pub fn meets(&self, target: f64) -> bool {
        self.percent() >= target && (target < 100.0 || self.complete() == self.meters.len())
    }

    /// `when` is "yesterday" on the page.
    pub fn summary(&self, when: &str) -> String {
        let (complete, meters, attention) = (self.complete(), self.meters.len(), self.need_attention().count());
        let noun = if meters == 1 { "meter" } else { "meters" };
        let verb = if attention == 1 { "needs" } else { "need" };
        match attention {
            0 => format!("{complete} of {meters} {noun} complete for {when}"),
            _ => format!("{complete} of {meters} {noun} complete for {when}, {attention} {verb} attention"),
        }
    }

    pub fn to_json(&self) -> Value {
        let series = |series: &SeriesReport| {
            let gap = |gap: &super::Gap| json!({"from": gap.from.to_string(), "to": gap.to.to_string(), "missing": gap.missing});
            json!({"code": series.code.to_string(), "kind": series.kind.name(), "period_s": series.period_s,
                   "cadence_s": series.cadence_s, "expected": series.expected, "held": series.held,
                   "gaps": series.gaps.iter().map(gap).collect::<Vec<_>>()})
        };
        let meter = |meter: &MeterReport| {
            json!({"meter": meter.meter.as_ref().map(ToString::to_string), "name": meter.name,
                   "gateway": meter.gateway.as_str(),
                   "seen_by": meter.seen_by.iter().map(GatewayId::as_str).collect::<Vec<_>>(), "complete": meter.is_complete, "cause": meter.cause,
                   "series": meter.series.iter().map(series).collect::<Vec<_>>()})
        };
        json!({
            "day": self.day.to_string(),
            "tz": self.zone,
            "from": self.window.from.to_string(),
            "to": self.window.to.to_string(),
            "day_is_over": self.day_is_over,
            "meters": self.meters.len(),
            "complete": self.complete(),
            "need_attention": self.need_attention().count(),
            "expected": self.expected(),
            "held": self.held(),
            "percent": self.percent(),
            "detail": self.meters.iter().map(meter).collect::<Vec<_>>(),
        })
    }

    fn series(&self) -> impl Iterator<Item = &SeriesReport> {
        self.meters.iter().flat_map(|meter| &meter.series)
    }
}

impl fmt::Display for CompletenessReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.summary(&self.day.to_string()))?;
        let (hours, so_far) = (self.window.hours(), if self.day_is_over { "" } else { " so far" });
        let (held, expected, percent) = (self.held(), self.expected(), self.percent());
        writeln!(f, "{held} of {expected} readings ({percent:.2} %), {} {hours} h{so_far}", self.zone)?;
        for meter in self.meters.iter().filter(|meter| !meter.is_complete || meter.cause.is_some()) {
            let id = meter.meter.as_ref().map_or_else(|| "(unknown)".to_owned(), ToString::to_string);
            writeln!(
                f,
                "\n{id} {:?} of {}: {}",
                meter.name,
                meter.gateway,
                meter.cause.as_deref().unwrap_or("incomplete")
            )?;
            for series in meter.series.iter().filter(|series| !series.is_complete()) {
                let SeriesReport { code, kind, held, expected, .. } = series;
                writeln!(f, "  {code} {kind}: {held} of {expected}")?;
                for gap in &series.gaps {
                    writeln!(f, "    {} missing from {} to {}", gap.missing, gap.from, gap.to)?;
                }
            }
        }
        Ok(())
    }
}
