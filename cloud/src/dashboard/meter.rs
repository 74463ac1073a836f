//! The page of one meter: who it is, its series, and a day of one of them as a curve and as a table.

use actix_web::http::StatusCode;
use actix_web::web::{Data, Path};
use actix_web::{HttpRequest, HttpResponse};
use jiff::tz::TimeZone;
use protocols::metering::{Day, Kind, MeterId, Series, UtcMillis};
use protocols::uplink::GatewayId;

use super::html::{Html, clock_offset, esc, grouped, query, time, value};
use super::tables::meter_chip;
use super::{Frame, respond, show};
use crate::api::fleet::Meter;
use crate::api::json::{decimal, started_at};
use crate::api::params::{self, Params, local, today};
use crate::api::readings::range;
use crate::api::{ApiError, ApiState, meters};
use crate::completeness::Window;
use crate::store::StoredReading;

const KNOWN: [&str; 5] = ["code", "kind", "period_s", "day", "tz"];
/// Of the day's readings, in the table; the curve and the CSV file have all.
const ROWS_SHOWN: usize = 200;
const ROWS_MAX: usize = 100_000;

pub(super) async fn page(request: HttpRequest, path: Path<String>, state: Data<ApiState>) -> HttpResponse {
    show(&request, render(&request, &path, &state)).await
}

/// A day of one series, as it is shown.
struct Shown<'a> {
    meter: &'a Meter,
    id: &'a MeterId,
    series: Series,
    cadence_s: u32,
    day: Day,
    today: Day,
    /// That of the newest reading: its page says when a newer one has come.
    newest: Day,
    window: Window,
    zone: &'a TimeZone,
    /// As given; links carry it on.
    zone_given: Option<&'a str>,
}

async fn render(request: &HttpRequest, path: &str, state: &ApiState) -> Result<HttpResponse, ApiError> {
    let params = Params::parse(request.query_string(), &KNOWN)?;
    let (zone, now) = (params.zone(&state.zone)?, state.clock.now());
    let fleet = state.fleet().await?;
    let meter = meters::find(&fleet, path)?;
    let today = today(now, &zone);
    let mut main = Html::default();
    identity(&mut main, meter, (now, &zone));
    let id = meter.id.as_ref().expect("it was found by its id");
    let chosen = choose(meter, id, &params)?;
    let newest = opens_on(meter, chosen.as_ref().map(|(series, _)| series), today, &zone);
    let day = params.day(newest)?;
    let window = Window::of_day(day, &zone)?;
    if let Some((series, cadence_s)) = chosen {
        let zone_given = params.text("tz");
        let shown = Shown { meter, id, series, cadence_s, day, today, newest, window, zone: &zone, zone_given };
        let rows = state.store.read_range(range(shown.series.clone(), window, None, ROWS_MAX)).await?;
        shown.series_list(&mut main);
        shown.day(&mut main, &rows);
    } else {
        main.raw("<section class=\"notice\"><p>It has delivered no reading yet.</p></section>");
    }
    let frame = Frame {
        title: &meter.name,
        zone: zone.iana_name().unwrap_or("UTC"),
        refresh_s: None,
        signed_in: state.viewer.is_some(),
    };
    Ok(respond(StatusCode::OK, &frame, &main))
}

/// The day shown when none is asked for: that of the newest reading of the series, so that a meter that has been silent for
/// weeks, or is read weeks late, does not open on nothing.
fn opens_on(meter: &Meter, series: Option<&Series>, today: Day, zone: &TimeZone) -> Day {
    let last = meter.last.iter().find(|last| Some(&last.series) == series).or_else(|| meter.last_reading());
    let Some(last) = last else { return today };
    // What ends at midnight is of the day that ends.
    let within = if last.series.kind.has_period() { last.captured_at.plus_ms(-1) } else { last.captured_at };
    params::today(within, zone).min(today)
}

/// The series asked for, or the one that says most; with how often a reading is expected, 0 where nobody said.
fn choose(meter: &Meter, id: &MeterId, params: &Params) -> Result<Option<(Series, u32)>, ApiError> {
    let all = series_of(meter, id);
    let rank = |series: &Series| match series.kind {
        Kind::Interval => 0,
        Kind::Average => 1,
        Kind::Instant => 2,
        Kind::Register => 3,
        Kind::Maximum => 4,
        Kind::Billing => 5,
    };
    let series = if (params.text("code"), params.text("kind")) == (None, None) {
        all.iter().min_by_key(|series| rank(series)).cloned()
    } else {
        let wanted = Series {
            meter: id.clone(),
            code: params.required("code", "an OBIS code such as 1-0:1.8.0")?,
            kind: params.required("kind", "one of the kinds that the page lists")?,
            period_s: params.optional("period_s", "whole seconds")?.unwrap_or(0),
        };
        let missing = || ApiError::not_found(format!("there is no series {wanted}"), "the meter's page lists them");
        Some(all.iter().find(|series| **series == wanted).cloned().ok_or_else(missing)?)
    };
    let cadence_s = |series: &Series| {
        let expected = meter.expected.iter().find(|expected| {
            (&expected.code, expected.kind, expected.period_s) == (&series.code, series.kind, series.period_s)
        });
        expected.map_or(series.period_s, |expected| expected.cadence_s)
    };
    Ok(series.map(|series| {
        let cadence_s = cadence_s(&series);
        (series, cadence_s)
    }))
}

/// Stored and expected ones, ascending.
fn series_of(meter: &Meter, id: &MeterId) -> Vec<Series> {
    let expected = meter.expected.iter().map(|expected| Series {
        meter: id.clone(),
        code: expected.code.clone(),
        kind: expected.kind,
        period_s: expected.period_s,
    });
    let mut all: Vec<Series> = meter.last.iter().map(|last| last.series.clone()).chain(expected).collect();
    all.sort();
    all.dedup();
    all
}

fn identity(main: &mut Html, meter: &Meter, (now, zone): (UtcMillis, &TimeZone)) {
    main.put(format_args!(
        "<section class=\"identity\"><p class=\"crumb\"><a href=\"/\">All meters</a></p><h1>{} {}</h1>",
        esc(&meter.name),
        meter_chip(meter)
    ));
    if !meter.cause.is_empty() {
        main.put(format_args!("<p class=\"why\">{}</p>", esc(&meter.cause)));
    }
    main.raw("<dl>");
    let mut fact = |name: &str, text: String| main.put(format_args!("<div><dt>{name}</dt><dd>{text}</dd></div>"));
    fact("Meter", format!("<span class=\"mono\">{}</span>", esc(meter.id.as_ref().map_or("", |id| id.as_str()))));
    if let Some(point) = &meter.metering_point {
        fact("Metering point", format!("<span class=\"mono\">{}</span>", esc(point)));
    }
    if let Some(protocol) = &meter.protocol {
        fact("Protocol", esc(protocol).to_string());
    }
    let gateways: Vec<&str> = meter.gateways.iter().map(GatewayId::as_str).collect();
    fact("Gateway", format!("<span class=\"mono\">{}</span>", esc(gateways.join(", "))));
    fact("Last read", time(meter.last_read_at, now, zone));
    if let Some(ms) = meter.clock_offset_ms {
        fact("Clock", format!("<span class=\"num\">{}</span>", clock_offset(ms)));
    }
    main.raw("</dl></section>");
}

impl Shown<'_> {
    /// `None`: the day that the page opens on when none is asked for.
    fn link(&self, series: &Series, day: Option<Day>) -> String {
        let (id, code) = (query(self.id.as_str()), query(&series.code.to_string()));
        let mut link = Html::default();
        link.put(format_args!("/meters/{id}?code={code}&amp;kind={}", series.kind));
        if series.period_s != 0 {
            link.put(format_args!("&amp;period_s={}", series.period_s));
        }
        if let Some(day) = day {
            link.put(format_args!("&amp;day={day}"));
        }
        if let Some(zone) = self.zone_given {
            link.put(format_args!("&amp;tz={}", query(zone)));
        }
        link.0
    }

    /// The readings of the day as the API names them, still to be escaped.
    fn readings(&self, rest: &str) -> String {
        let series = &self.series;
        let period = if series.period_s == 0 { String::new() } else { format!("&period_s={}", series.period_s) };
        format!(
            "/v1/readings?meter={}&code={}&kind={}{period}&day={}&tz={}{rest}",
            query(self.id.as_str()),
            query(&series.code.to_string()),
            series.kind,
            self.day,
            query(self.zone.iana_name().unwrap_or("UTC")),
        )
    }

    fn series_list(&self, main: &mut Html) {
        main.raw("<nav class=\"series\" aria-label=\"Series\"><ul>");
        for series in series_of(self.meter, self.id) {
            let last = self.meter.last.iter().find(|last| last.series == series);
            let current = if series == self.series { " aria-current=\"true\"" } else { "" };
            main.put(format_args!(
                "<li><a href=\"{}\"{current}><span class=\"mono\">{}</span><span class=\"faint\">{}</span>\
                 <span class=\"last\" data-series=\"{}\" data-at=\"{}\">{}</span></a></li>",
                self.link(&series, Some(self.day)),
                esc(&series.code),
                esc(kind_text(&series)),
                esc(format!("{} {} {}", series.code, series.kind, series.period_s)),
                last.map_or(0, |last| last.captured_at.0),
                last.map_or_else(|| "<span class=\"faint\">no reading</span>".to_owned(), |last| value(last.quantity)),
            ));
        }
        main.raw("</ul></nav>");
    }

    fn day(&self, main: &mut Html, rows: &[StoredReading]) {
        let (before, after) = (Day(self.day.0 - 1), self.day.next());
        main.put(format_args!(
            "<section class=\"day\" aria-labelledby=\"day\"><div class=\"day-head\"><h2 id=\"day\">{} \
             <span class=\"faint\">{} h</span></h2><nav aria-label=\"Days\"><a class=\"button\" href=\"{}\">Day before</a>",
            self.day,
            Window::hours(&self.window),
            self.link(&self.series, Some(before))
        ));
        if self.day < self.today {
            main.put(format_args!(
                "<a class=\"button\" href=\"{}\">Day after</a>",
                self.link(&self.series, Some(after))
            ));
        }
        // The script shows it when readings of a later day come: a day that is followed must not end in silence.
        if self.day >= self.newest {
            let newest = self.link(&self.series, None);
            main.put(format_args!(
                "<a class=\"button\" id=\"newer\" href=\"{newest}\" hidden>Newer readings have come</a>"
            ));
        }
        main.put(format_args!(
            "<a class=\"button\" href=\"{}\" download>CSV</a></nav></div>",
            esc(self.readings("&format=csv"))
        ));
        self.curve(main, rows);
        self.table(main, rows);
        main.raw("</section>");
    }

    fn curve(&self, main: &mut Html, rows: &[StoredReading]) {
        let unit = rows.last().map(|row| row.quantity.unit.to_string()).unwrap_or_default();
        main.put(format_args!(
            "<figure class=\"curve\" id=\"curve\" data-src=\"{}\" data-meter=\"{}\" data-code=\"{}\" data-kind=\"{}\" \
             data-period-s=\"{}\" data-cadence-s=\"{}\" data-from=\"{}\" data-to=\"{}\" data-tz=\"{}\" data-unit=\"{}\">\
             <figcaption><span class=\"mono\">{}</span> {}<output class=\"probe\" id=\"probe\"></output>\
             <button type=\"button\" id=\"reset\" hidden>Whole day</button></figcaption>\
             <div class=\"plot\" id=\"plot\" tabindex=\"0\" role=\"img\" aria-label=\"Curve of the day; the table below has its \
             numbers. Plus and minus zoom, arrows move, 0 shows the whole day.\"></div></figure>",
            esc(self.readings("&limit=10000")),
            esc(self.id),
            esc(&self.series.code),
            self.series.kind,
            self.series.period_s,
            self.cadence_s,
            self.window.from,
            self.window.to,
            esc(self.zone.iana_name().unwrap_or("UTC")),
            esc(unit),
            esc(&self.series.code),
            esc(kind_text(&self.series)),
        ));
    }

    fn table(&self, main: &mut Html, rows: &[StoredReading]) {
        let has_period = self.series.kind.has_period();
        let when = if has_period { "<th>From</th><th>To</th>" } else { "<th>Captured</th>" };
        let count = grouped(rows.len() as u64);
        main.put(format_args!(
            "<div class=\"readings\"><h3>Readings <span class=\"count\" id=\"count\">{count}</span></h3><div class=\"scroll\">\
             <table id=\"readings\" data-rows=\"{ROWS_SHOWN}\"><thead><tr>{when}<th class=\"r\">Value</th><th>Quality</th>\
             </tr></thead><tbody>",
        ));
        for row in rows.iter().rev().take(ROWS_SHOWN) {
            let clock = |at: UtcMillis| self.clock(at);
            main.put(format_args!("<tr data-at=\"{}.{}\">", row.captured_at.0, row.nth));
            if has_period {
                let start = started_at(&row.series, row.captured_at).map(clock).unwrap_or_default();
                main.put(format_args!("<td class=\"num\">{start}</td>"));
            }
            let quality = row.quality.to_string();
            let class = if quality == "good" { "faint" } else { "doubt" };
            main.put(format_args!(
                "<td class=\"num\">{}</td><td class=\"r\"><span class=\"num\">{}</span> <span class=\"unit\">{}</span></td>\
                 <td class=\"{class}\">{}</td></tr>",
                clock(row.captured_at),
                esc(decimal(row.quantity)),
                esc(row.quantity.unit),
                esc(quality.replace('|', ", ")),
            ));
        }
        main.raw("</tbody></table></div>");
        if rows.is_empty() {
            main.raw("<p class=\"faint\" id=\"none\">No reading of this day.</p>");
        } else if rows.len() > ROWS_SHOWN {
            main.put(format_args!("<p class=\"faint\">The newest {ROWS_SHOWN} of {count}; the CSV file has all.</p>"));
        }
        main.raw("</div>");
    }

    /// Time of day with its offset where the day has more than one.
    fn clock(&self, at: UtcMillis) -> String {
        let text = local(at, self.zone);
        let clock = text.get(11..19).unwrap_or_default();
        let clock = if self.series.period_s.is_multiple_of(60) && self.series.period_s > 0 {
            clock.get(..5).unwrap_or(clock)
        } else {
            clock
        };
        let offset = |at| local(at, self.zone).rsplit_once(['+', '-']).map(|(_, offset)| offset.to_owned());
        if offset(self.window.from) == offset(self.window.to) {
            return clock.to_owned();
        }
        let shown = text.get(text.len().saturating_sub(6)..).unwrap_or_default();
        format!("{clock} <span class=\"faint\">{shown}</span>")
    }
}

fn kind_text(series: &Series) -> String {
    let kind = match series.kind {
        Kind::Register => "register",
        Kind::Interval => "consumption",
        Kind::Average => "average",
        Kind::Maximum => "maximum",
        Kind::Instant => "momentary",
        Kind::Billing => "billing",
    };
    match series.period_s {
        0 => kind.to_owned(),
        seconds if seconds.is_multiple_of(60) => format!("{kind}, {} min", seconds / 60),
        seconds => format!("{kind}, {seconds} s"),
    }
}
