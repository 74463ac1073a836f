//! The tables of the overview: gateways and meters, a page of each, found by text.

use jiff::tz::TimeZone;
use protocols::metering::UtcMillis;
use protocols::uplink::{GatewayId, MeterState};

use super::html::{Html, esc, grouped, query, time, value};
use crate::api::fleet::{Fleet, Gateway, Meter};
use crate::api::params::Params;
use crate::api::{ApiError, Live};

const GATEWAYS_SHOWN: usize = 25;
const METERS_SHOWN: usize = 100;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Chip {
    Good,
    Warn,
    Bad,
    Idle,
}

/// A status in colour and in words.
pub(super) fn chip(chip: Chip, text: &str) -> String {
    let class = match chip {
        Chip::Good => "good",
        Chip::Warn => "warn",
        Chip::Bad => "bad",
        Chip::Idle => "idle",
    };
    format!("<span class=\"chip {class}\">{}</span>", esc(text))
}

pub(super) fn meter_chip(meter: &Meter) -> String {
    let kind = match meter.state {
        _ if meter.seen_by.len() > 1 => Chip::Warn,
        MeterState::Ok => Chip::Good,
        MeterState::Unknown => Chip::Idle,
        MeterState::ClockOff | MeterState::Refusing => Chip::Warn,
        MeterState::Silent | MeterState::WrongIdentity | MeterState::Parked => Chip::Bad,
    };
    chip(kind, meter.state_name())
}

/// What is shown of each table; every link of the page carries it on.
pub(super) struct Pages {
    pub(super) search: String,
    zone: Option<String>,
    gateways: usize,
    meters: usize,
}

impl Pages {
    pub(super) fn new(params: &Params) -> Result<Self, ApiError> {
        let page = |name| params.optional::<u32>(name, "the number of a page, from 0");
        Ok(Self {
            search: params.text("q").unwrap_or_default().trim().to_owned(),
            zone: params.text("tz").map(str::to_owned),
            gateways: page("gateways")?.unwrap_or(0) as usize,
            meters: page("meters")?.unwrap_or(0) as usize,
        })
    }

    /// The zone as part of a link, when it is not the default.
    pub(super) fn zone(&self, separator: &str) -> String {
        self.zone.as_ref().map(|zone| format!("{separator}tz={}", query(zone))).unwrap_or_default()
    }

    pub(super) fn zone_input(&self) -> String {
        let input = |zone: &String| format!("<input type=\"hidden\" name=\"tz\" value=\"{}\">", esc(zone));
        self.zone.as_ref().map(input).unwrap_or_default()
    }

    fn link(&self, gateways: usize, meters: usize) -> String {
        format!("/?q={}&amp;gateways={gateways}&amp;meters={meters}{}", query(&self.search), self.zone("&amp;"))
    }

    fn finds(&self, texts: &[&str]) -> bool {
        let wanted = self.search.to_lowercase();
        wanted.is_empty() || texts.iter().any(|text| text.to_lowercase().contains(&wanted))
    }
}

/// "1 to 25 of 312" with links to the neighbours.
fn pager(main: &mut Html, (page, shown, count): (usize, usize, usize), link: impl Fn(usize) -> String) {
    if count <= shown && page == 0 {
        return;
    }
    let (first, last) = ((page * shown + 1).min(count), ((page + 1) * shown).min(count));
    main.put(format_args!("<nav class=\"pager\" aria-label=\"Pages\"><span>{first} to {last} of {count}</span>"));
    if page > 0 {
        main.put(format_args!("<a href=\"{}\">Previous</a>", link(page - 1)));
    }
    if last < count {
        main.put(format_args!("<a href=\"{}\">Next</a>", link(page + 1)));
    }
    main.raw("</nav>");
}

pub(super) fn gateways(
    main: &mut Html,
    fleet: &Fleet,
    live: &Live,
    pages: &Pages,
    (now, zone): (UtcMillis, &TimeZone),
) {
    let found = fleet.gateways.iter().filter(|(id, _)| pages.finds(&[id.as_str()]));
    let mut found: Vec<(&GatewayId, &Gateway)> = found.collect();
    // Who is missed stands first, then who is alarming.
    found.sort_by_key(|(_, gateway)| {
        let is_heard = gateway.is_heard(now);
        (is_heard, gateway.last_heard_at.filter(|_| !is_heard), gateway.alarm.is_none())
    });
    main.put(format_args!(
        "<section aria-labelledby=\"gateways\"><h2 id=\"gateways\">Gateways <span class=\"count\">{}</span></h2>",
        found.len()
    ));
    if found.is_empty() {
        main.raw("<p class=\"faint\">None found.</p></section>");
        return;
    }
    main.raw(
        "<div class=\"scroll\"><table><thead><tr><th>Gateway</th><th>State</th><th>Last seen</th><th class=\"r\">Meters ok</th>\
         <th class=\"r\">Backlog</th><th class=\"r\">Readings/s</th><th>Software</th></tr></thead><tbody>",
    );
    for (id, gateway) in found.iter().skip(pages.gateways * GATEWAYS_SHOWN).take(GATEWAYS_SHOWN) {
        let state = match (gateway.is_heard(now), gateway.batches_refused, gateway.batches_lost, &gateway.alarm) {
            (false, ..) => chip(Chip::Bad, "silent"),
            (true, _, _, Some(alarm)) => chip(Chip::Bad, alarm),
            (true, 0, 0, None) => chip(Chip::Good, "heard"),
            (true, refused, 0, None) => chip(Chip::Warn, &format!("{refused} refused")),
            (true, _, lost, None) => chip(Chip::Bad, &format!("{lost} lost")),
        };
        let status = gateway.status.as_ref();
        main.put(format_args!(
            "<tr><th scope=\"row\" class=\"mono\">{}</th><td data-label=\"State\">{state}</td><td data-label=\"Last seen\">{}</td>\
             <td class=\"r\" data-label=\"Meters ok\">{} <span class=\"faint\">of {}</span></td>\
             <td class=\"r\" data-label=\"Backlog\">{}</td><td class=\"r\" data-label=\"Readings/s\">{:.2}</td>\
             <td data-label=\"Software\" class=\"faint\">{}</td></tr>",
            esc(id),
            time(gateway.last_heard_at, now, zone),
            gateway.meters_ok,
            gateway.meters,
            status.map_or_else(|| "–".to_owned(), |status| grouped(status.backlog_rows)),
            live.rate(id, now),
            esc(status.map_or("", |status| status.software.as_str())),
        ));
    }
    main.raw("</tbody></table></div>");
    pager(main, (pages.gateways, GATEWAYS_SHOWN, found.len()), |page| pages.link(page, pages.meters));
    main.raw("</section>");
}

pub(super) fn meters(main: &mut Html, fleet: &Fleet, pages: &Pages, (now, zone): (UtcMillis, &TimeZone)) {
    let finds = |meter: &&Meter| {
        let id = meter.id.as_ref().map_or("", |id| id.as_str());
        let gateway = meter.gateways.first().map_or("", |id| id.as_str());
        pages.finds(&[&meter.name, id, gateway, meter.metering_point.as_deref().unwrap_or("")])
    };
    let found: Vec<&Meter> = fleet.meters.iter().filter(finds).collect();
    main.put(format_args!(
        "<section aria-labelledby=\"meters\"><h2 id=\"meters\">Meters <span class=\"count\">{}</span></h2>",
        found.len()
    ));
    if found.is_empty() {
        main.raw("<p class=\"faint\">None found.</p></section>");
        return;
    }
    main.raw(
        "<div class=\"scroll\"><table><thead><tr><th>Meter</th><th>State</th><th>Newest reading</th><th class=\"r\">Value</th>\
         <th>Series</th><th>Gateway</th></tr></thead><tbody>",
    );
    for meter in found.iter().skip(pages.meters * METERS_SHOWN).take(METERS_SHOWN) {
        meter_row(main, meter, pages, (now, zone));
    }
    main.raw("</tbody></table></div>");
    pager(main, (pages.meters, METERS_SHOWN, found.len()), |page| pages.link(pages.gateways, page));
    main.raw("</section>");
}

fn meter_row(main: &mut Html, meter: &Meter, pages: &Pages, (now, zone): (UtcMillis, &TimeZone)) {
    let name = match &meter.id {
        Some(id) if id.as_str() == meter.name => {
            format!("<a class=\"mono\" href=\"/meters/{}{}\">{}</a>", query(id.as_str()), pages.zone("?"), esc(id))
        }
        Some(id) => format!(
            "<a href=\"/meters/{}{}\">{}</a> <span class=\"faint mono\">{}</span>",
            query(id.as_str()),
            pages.zone("?"),
            esc(&meter.name),
            esc(id)
        ),
        None => format!("{} <span class=\"faint\">not identified</span>", esc(&meter.name)),
    };
    let last = meter.last_reading();
    let series = last.map(|last| format!("{} {}", last.series.code, last.series.kind)).unwrap_or_default();
    main.put(format_args!(
        "<tr><th scope=\"row\">{name}</th><td data-label=\"State\">{}</td><td data-label=\"Newest reading\">{}</td>\
         <td class=\"r\" data-label=\"Value\">{}</td><td data-label=\"Series\" class=\"mono faint\">{}</td>\
         <td data-label=\"Gateway\" class=\"mono\">{}</td></tr>",
        meter_chip(meter),
        time(last.map(|last| last.captured_at), now, zone),
        last.map_or_else(|| "–".to_owned(), |last| value(last.quantity)),
        esc(series),
        esc(meter.gateways.first().map_or("–", |id| id.as_str())),
    ));
}
