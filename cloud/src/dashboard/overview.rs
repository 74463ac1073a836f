//! The first page: is yesterday complete, who needs attention, how the gateways and meters are.

use std::collections::BTreeMap;

use actix_web::http::StatusCode;
use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse};
use jiff::tz::TimeZone;
use protocols::metering::{Day, UtcMillis};
use protocols::uplink::MeterState;

use super::html::{Html, esc, grouped, localized, query, time};
use super::tables::{self, Chip, Pages, chip};
use super::{Frame, respond, show};
use crate::api::fleet::Fleet;
use crate::api::params::{Params, today};
use crate::api::{ApiError, ApiState};
use crate::completeness::{CompletenessReport, MeterReport};
use crate::seen::TWO_GATEWAYS;

const KNOWN: [&str; 6] = ["tz", "q", "gateways", "meters", "attention", "day"];
const REFRESH_S: u32 = 10;
const ATTENTION_MAX: usize = 25;
const DAY_MS: i64 = 86_400_000;
/// A day may pass before a meter that is read once a day is read again.
const BEHIND_DAYS_MIN: i64 = 2;

pub(super) async fn page(request: HttpRequest, state: Data<ApiState>) -> HttpResponse {
    show(&request, render(&request, &state)).await
}

async fn render(request: &HttpRequest, state: &ApiState) -> Result<HttpResponse, ApiError> {
    let params = Params::parse(request.query_string(), &KNOWN)?;
    let zone = params.zone(&state.zone)?;
    let now = state.clock.now();
    let yesterday = Day(today(now, &zone).0 - 1);
    let day = params.day(yesterday)?;
    let (report, fleet) = (state.completeness(day, &zone).await?, state.fleet().await?);
    let pages = Pages::new(&params)?;
    let mut main = Html::default();
    let when = if day == yesterday { "yesterday".to_owned() } else { day.to_string() };
    headline(&mut main, &report, &when, &zone);
    attention(&mut main, (&report, &fleet), now, params.text("attention") == Some("all"), &pages, &zone);
    tiles(&mut main, &fleet, state, now, &zone);
    search(&mut main, &pages);
    tables::gateways(&mut main, &fleet, &state.live, &pages, (now, &zone));
    tables::meters(&mut main, &fleet, &pages, (now, &zone));
    let name = zone.iana_name().unwrap_or("UTC");
    let frame = Frame { title: "Fleet", zone: name, refresh_s: Some(REFRESH_S), signed_in: state.viewer.is_some() };
    Ok(respond(StatusCode::OK, &frame, &main))
}

fn headline(main: &mut Html, report: &CompletenessReport, when: &str, zone: &TimeZone) {
    let attention = report.need_attention().count();
    let class = if report.meters.is_empty() {
        "idle"
    } else if attention > 0 {
        "warn"
    } else {
        "good"
    };
    main.put(format_args!("<section class=\"headline {class}\"><h1>{}</h1>", esc(report.summary(when))));
    if report.meters.is_empty() {
        main.raw(
            "<p>No gateway has named a meter yet. Point a gateway's broker and upload address here; its meters appear with \
             its first batch.</p></section>",
        );
        return;
    }
    main.put(format_args!(
        "<progress max=\"{}\" value=\"{}\" aria-label=\"Readings held of those expected\"></progress>\
         <p><span class=\"num\">{}</span> of <span class=\"num\">{}</span> expected readings held \
         (<span class=\"num\">{}&thinsp;%</span>) · {} · {} h in {}</p></section>",
        report.expected().max(1),
        report.held(),
        grouped(report.held()),
        grouped(report.expected()),
        floored(report.percent()),
        report.day,
        report.window.hours(),
        esc(zone.iana_name().unwrap_or("UTC")),
    ));
}

/// Two decimals, rounded down: 100 means all.
fn floored(percent: f64) -> String {
    format!("{:.2}", (percent * 100.0).floor() / 100.0)
}

fn attention(
    main: &mut Html,
    (report, fleet): (&CompletenessReport, &Fleet),
    now: UtcMillis,
    all: bool,
    pages: &Pages,
    zone: &TimeZone,
) {
    let count = report.need_attention().count();
    if count == 0 {
        return;
    }
    main.raw(
        "<section aria-labelledby=\"attention\"><h2 id=\"attention\">Needs attention</h2><ul class=\"attention\">",
    );
    let behind = if all { None } else { days_behind(fleet, now) };
    if let Some(behind) = behind {
        for (days, meters) in behind.into_iter().rev() {
            main.put(format_args!(
                "<li>{}<div class=\"who\"><strong>last reading {days} days ago: {meters} {}</strong></div></li>",
                chip(Chip::Bad, "fleet behind"),
                if meters == 1 { "meter" } else { "meters" },
            ));
        }
        main.put(format_args!(
            "</ul><p><a href=\"/?attention=all{}\">Show each of {count}</a></p></section>",
            pages.zone("&amp;")
        ));
        return;
    }
    let shown = if all { count } else { ATTENTION_MAX };
    let mut listed: Vec<_> = report.need_attention().map(|meter| (reason(meter, fleet), meter)).collect();
    // What delivers nothing stands before what delivers not all.
    listed.sort_by_key(|((kind, _), _)| *kind != Chip::Bad);
    for ((kind, text), meter) in listed.into_iter().take(shown) {
        let name = match &meter.meter {
            Some(id) => {
                format!("<a href=\"/meters/{}{}\">{}</a>", query(id.as_str()), pages.zone("?"), esc(&meter.name))
            }
            None => format!("<strong>{}</strong>", esc(&meter.name)),
        };
        let id = meter.meter.as_ref().map_or("not identified", |id| id.as_str());
        main.put(format_args!(
            "<li>{}<div class=\"who\">{name}<span class=\"faint mono\">{} · {}</span></div><div class=\"why\">{}</div></li>",
            chip(kind, text),
            esc(id),
            esc(&meter.gateway),
            esc(localized(meter.cause.as_deref().unwrap_or_default(), zone)),
        ));
    }
    main.raw("</ul>");
    if count > shown {
        main.put(format_args!("<p><a href=\"/?attention=all{}\">Show all {count}</a></p>", pages.zone("&amp;")));
    }
    main.raw("</section>");
}

/// When the newest reading of every meter is days old, one cause is behind all of them (an import of old data, a feed that
/// stopped), and the same alarm for each would hide it: how many meters by how many days. `None` while any meter is up to
/// date or has never delivered.
fn days_behind(fleet: &Fleet, now: UtcMillis) -> Option<BTreeMap<i64, usize>> {
    let mut behind = BTreeMap::new();
    for meter in &fleet.meters {
        let days = now.since(meter.last_reading()?.captured_at) / DAY_MS;
        if days < BEHIND_DAYS_MIN {
            return None;
        }
        *behind.entry(days).or_insert(0) += 1;
    }
    (fleet.meters.len() > 1).then_some(behind)
}

/// The cause in a word or two.
fn reason(meter: &MeterReport, fleet: &Fleet) -> (Chip, &'static str) {
    let known = fleet.meters.iter().find(|known| match &meter.meter {
        Some(id) => known.id.as_ref() == Some(id),
        None => known.id.is_none() && known.name == meter.name && known.gateways.contains(&meter.gateway),
    });
    let state = known.map_or(MeterState::Unknown, |known| known.state);
    match state {
        MeterState::Silent => (Chip::Bad, "silent"),
        MeterState::WrongIdentity => (Chip::Bad, "wrong identity"),
        MeterState::Refusing => (Chip::Warn, "refused object"),
        MeterState::ClockOff => (Chip::Warn, "clock off"),
        MeterState::Parked => (Chip::Bad, "parked"),
        MeterState::Ok | MeterState::Unknown if meter.seen_by.len() > 1 => (Chip::Warn, TWO_GATEWAYS),
        MeterState::Ok | MeterState::Unknown if meter.meter.is_none() => (Chip::Bad, "unidentified"),
        MeterState::Ok | MeterState::Unknown => {
            let gateway = meter.cause.as_deref().is_some_and(|cause| cause.starts_with("gateway "));
            if gateway { (Chip::Bad, "gateway silent") } else { (Chip::Warn, "gap") }
        }
    }
}

fn tiles(main: &mut Html, fleet: &Fleet, state: &ApiState, now: UtcMillis, zone: &TimeZone) {
    let heard = fleet.gateways.values().filter(|gateway| gateway.is_heard(now)).count();
    let ok = fleet.meters.iter().filter(|meter| meter.state == MeterState::Ok).count();
    let statuses = || fleet.gateways.values().filter_map(|gateway| gateway.status.as_ref());
    let backlog: u64 = statuses().map(|status| status.backlog_rows).sum();
    let since = statuses().filter(|status| status.backlog_rows > 0).filter_map(|status| status.backlog_since).min();
    let last = fleet.meters.iter().filter_map(|meter| meter.last_reading()).map(|last| last.captured_at).max();
    let of = |part: usize, all: usize| format!("{part} <span class=\"faint\">of {all}</span>");
    let since = match since {
        Some(since) => format!("oldest read {}", time(Some(since), now, zone)),
        None => "nothing waits at a gateway".to_owned(),
    };
    main.put(format_args!(
        "<section class=\"tiles\" aria-label=\"Fleet\">\
         <div><h3>Gateways heard</h3><p>{}</p><small>in the last 15 min</small></div>\
         <div><h3>Meters ok</h3><p>{}</p><small>as their gateways say</small></div>\
         <div><h3>Readings per second</h3><p>{:.2}</p><small>mean of 5 min</small></div>\
         <div><h3>Backlog</h3><p>{}</p><small>{since}</small></div>\
         <div><h3>Newest reading</h3><p class=\"when\">{}</p></div></section>",
        of(heard, fleet.gateways.len()),
        of(ok, fleet.meters.len()),
        state.live.rate_of_all(now),
        grouped(backlog),
        time(last, now, zone),
    ));
}

fn search(main: &mut Html, pages: &Pages) {
    main.put(format_args!(
        "<form class=\"search\" method=\"get\" action=\"/\" role=\"search\"><label for=\"q\">Find a meter or gateway</label>\
         <input id=\"q\" name=\"q\" type=\"search\" value=\"{}\" placeholder=\"name, id, metering point\">{}\
         <button>Find</button></form>",
        esc(&pages.search),
        pages.zone_input(),
    ));
}
