use actix_web::http::StatusCode;
use actix_web::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, COOKIE, HeaderMap, LOCATION, SET_COOKIE,
};
use actix_web::test::TestRequest;
use protocols::metering::Kind;
use protocols::uplink::{Inventory, MeterState};

use super::assets::{ICON, SCRIPT, STYLE};
use crate::api::testing::{HALF_HOUR_S, TOKEN, World, batch, block, call, entry, fleet, get, half_hours, now, series};

const PAGES: [&str; 4] = [
    "/?tz=Europe/Berlin",
    "/meters/KFM:1?tz=Europe/Berlin&day=2026-10-25&code=1-0:1.29.0&kind=interval&period_s=1800",
    "/meters/KFM:2",
    "/login",
];

fn header<'a>(headers: &'a HeaderMap, name: &actix_web::http::header::HeaderName) -> &'a str {
    headers.get(name).map_or("", |value| value.to_str().unwrap())
}

#[actix_web::test]
async fn the_first_line_says_whether_yesterday_is_complete_and_the_causes_follow() {
    let state = fleet().await.state(None);
    let (status, text) = get(&state, "/?tz=Europe/Berlin").await;
    assert_eq!(status, StatusCode::OK);
    let headline = text.find("<h1>1 of 4 meters complete for yesterday, 3 need attention</h1>").expect(&text);
    let causes = ["silent since", "wrong identity: expected 3, found &lt;9&gt;", "never identified"];
    for cause in causes {
        assert!(text.find(cause).is_some_and(|at| at > headline), "{cause} is not in\n{text}");
    }
    for found in ["gw-1", "gw-2", "KFM:4", "Readings per second", "Backlog"] {
        assert!(text.contains(found), "{found} is not in\n{text}");
    }
    assert!(get(&state, "/?tz=Europe/Berlin&day=2026-10-01").await.1.contains("0 of 4 meters complete for 2026-10-01"));
}

#[actix_web::test]
async fn names_from_outside_cannot_become_markup() {
    let state = fleet().await.state(None);
    for page in PAGES.into_iter().chain([
        "/?q=%22%3E%3Cscript%3E",
        "/meters/KFM:1?day=%3Cscript%3E",
        "/login?next=%22%3E%3Cscript%3E",
    ]) {
        let (_, text) = get(&state, page).await;
        assert!(!text.contains("<script>") && !text.contains("alert(\"roof\")"), "{page}\n{text}");
        assert_eq!(text.matches("<script").count(), 1, "{page}: the one of our own");
    }
    assert!(get(&state, "/").await.1.contains("&lt;script&gt;alert(&quot;roof&quot;)&lt;/script&gt;"));
}

#[actix_web::test]
async fn pages_load_nothing_from_anywhere_else_and_hold_nothing_inline() {
    let state = fleet().await.state(None);
    for page in PAGES {
        let (status, headers, text) = call(&state, TestRequest::get().uri(page)).await;
        assert_eq!(status, StatusCode::OK, "{page}");
        assert!(header(&headers, &CONTENT_SECURITY_POLICY).starts_with("default-src 'self';"));
        assert_eq!(header(&headers, &CACHE_CONTROL), "no-store");
        for forbidden in ["http://", "https://", "=\"//", " style=", "<style", " onclick", " onload", "javascript:"] {
            assert!(!text.contains(forbidden), "{forbidden} is in {page}\n{text}");
        }
        for asset in [&STYLE, &SCRIPT, &ICON] {
            assert!(text.contains(&asset.name), "{page} does not load {}", asset.name);
        }
    }
    for source in [include_str!("style.css"), include_str!("page.js")] {
        let foreign = source.replace("http://www.w3.org/2000/svg", "");
        assert!(!foreign.contains("://") && !foreign.contains("@import") && !foreign.contains("innerHTML"));
    }
}

#[actix_web::test]
async fn assets_are_kept_for_ever_under_names_of_their_content() {
    let state = World::new().await.state(Some(TOKEN));
    for (asset, media_type) in [(&STYLE, "text/css"), (&SCRIPT, "text/javascript"), (&ICON, "image/svg+xml")] {
        let (status, headers, _) = call(&state, TestRequest::get().uri(&format!("/assets/{}", asset.name))).await;
        assert_eq!(status, StatusCode::OK);
        assert!(header(&headers, &CONTENT_TYPE).starts_with(media_type));
        assert!(header(&headers, &CACHE_CONTROL).contains("immutable"));
    }
    assert_eq!(get(&state, "/assets/style-0000000000000000.css").await.0, StatusCode::NOT_FOUND);
}

#[actix_web::test]
async fn a_day_of_a_meter_is_a_table_and_tells_the_script_where_its_curve_is() {
    let state = fleet().await.state(None);
    let (_, text) = get(&state, PAGES[1]).await;
    assert_eq!(text.matches("<tr data-at=").count(), 50);
    assert!(text.contains("2026-10-25 <span class=\"faint\">25 h</span>"), "{text}");
    assert!(
        text.contains("02:30 <span class=\"faint\">+02:00</span>")
            && text.contains("02:30 <span class=\"faint\">+01:00</span>")
    );
    assert!(text.contains(
        "data-src=\"/v1/readings?meter=KFM:1&amp;code=1-0:1.29.0&amp;kind=interval&amp;period_s=1800&amp;day=2026-10-25"
    ));
    // The script follows on every page; only the newest day has something to go on to.
    assert!(!text.contains("id=\"newer\"") && text.contains("Day after"), "{text}");
    let (_, newest) = get(&state, "/meters/KFM:1").await;
    let link = "id=\"newer\" href=\"/meters/KFM:1?code=1-0:1.29.0&amp;kind=interval&amp;period_s=1800\" hidden";
    assert!(newest.contains(link), "{newest}");
    let src = text.split("data-src=\"").nth(1).unwrap().split('"').next().unwrap().replace("&amp;", "&");
    assert_eq!(get(&state, &src).await.0, StatusCode::OK, "the script's source answers");
}

#[actix_web::test]
async fn what_cannot_be_shown_is_said_on_a_page() {
    let state = fleet().await.state(None);
    for (path, status) in [
        ("/meters/KFM:99", StatusCode::NOT_FOUND),
        ("/meters/KFM:1?code=1-0:9.9.9&kind=register", StatusCode::NOT_FOUND),
        ("/meters/KFM:1?day=never", StatusCode::BAD_REQUEST),
        ("/?tz=Mars", StatusCode::BAD_REQUEST),
    ] {
        let (found, headers, text) = call(&state, TestRequest::get().uri(path)).await;
        assert_eq!((found, header(&headers, &CONTENT_TYPE)), (status, "text/html; charset=utf-8"), "{path}");
        assert!(text.contains("Back to the overview"));
    }
    let empty = World::new().await.state(None);
    let (_, text) = get(&empty, "/").await;
    assert!(text.contains("0 of 0 meters complete for yesterday") && text.contains("No gateway has named a meter yet"));
}

#[actix_web::test]
async fn signing_in_makes_a_session_that_no_script_can_read() {
    let state = fleet().await.state(Some(TOKEN));
    let (status, headers, text) = call(&state, TestRequest::get().uri("/meters/KFM:1?day=2026-10-25")).await;
    assert_eq!((status, text.as_str()), (StatusCode::SEE_OTHER, ""));
    assert_eq!(header(&headers, &LOCATION), "/login?next=%2Fmeters%2FKFM:1%3Fday%3D2026-10-25");
    let sign_in =
        |token: &str, next: &str| TestRequest::post().uri("/login").set_form([("token", token), ("next", next)]);
    let (status, headers, text) = call(&state, sign_in("a-wrong-token-for-tests", "/")).await;
    assert_eq!((status, header(&headers, &SET_COOKIE)), (StatusCode::UNAUTHORIZED, ""));
    assert!(text.contains("not the viewer token") && !text.contains("a-wrong-token"));
    let (status, headers, _) = call(&state, sign_in(TOKEN, "/meters/KFM:1?day=2026-10-25")).await;
    assert_eq!((status, header(&headers, &LOCATION)), (StatusCode::SEE_OTHER, "/meters/KFM:1?day=2026-10-25"));
    let cookie = header(&headers, &SET_COOKIE);
    assert!(cookie.contains("; HttpOnly; SameSite=Strict") && !cookie.contains(TOKEN), "{cookie}");
    let session = cookie.split(';').next().unwrap().to_owned();
    let (status, _, text) = call(&state, TestRequest::get().uri("/").insert_header((COOKIE, session))).await;
    assert!(status == StatusCode::OK && text.contains("Sign out"));
    for elsewhere in ["//example.org", "https://example.org", "/\\example.org", "javascript:alert(1)", ""] {
        let (_, headers, _) = call(&state, sign_in(TOKEN, elsewhere)).await;
        assert_eq!(header(&headers, &LOCATION), "/", "{elsewhere}");
    }
    let (_, headers, _) = call(&state, TestRequest::post().uri("/logout")).await;
    assert!(header(&headers, &SET_COOKIE).contains("Max-Age=0"));
}

/// Controls: with `today` in place of `opens_on` the page opens on an empty day; with `None` from `days_behind` there is one
/// alarm a meter.
#[actix_web::test]
async fn a_fleet_that_is_weeks_behind_is_one_line_and_its_meters_open_where_they_are() {
    let world = World::new().await;
    let names = ["KFM:1", "KFM:2"];
    let inventory =
        Inventory { meters: names.map(|name| entry(name, Some(name), MeterState::Ok, "")).into_iter().collect() };
    let rows = |name: &str| {
        block(series(name, "1-0:1.29.0", Kind::Interval, HALF_HOUR_S), half_hours("2026-10-03T00:00:00Z", 48))
    };
    world.deliver(batch("gw-1", 1, names.map(rows).into_iter().collect(), Some(inventory)), now()).await;
    let state = world.state(None);
    let (_, text) = get(&state, "/").await;
    assert!(text.contains("<h1>0 of 2 meters complete for yesterday, 2 need attention</h1>"), "{text}");
    assert!(text.contains("last reading 22 days ago: 2 meters"), "{text}");
    assert_eq!(text.matches("fleet behind").count(), 1);
    assert!(!get(&state, "/?attention=all").await.1.contains("fleet behind"), "each by itself");
    // What ends at midnight is of the day before.
    let (_, text) = get(&state, "/meters/KFM:1").await;
    assert!(text.contains("2026-10-03 <span class=\"faint\">24 h</span>"), "{text}");
    assert_eq!(text.matches("<tr data-at=").count(), 48);
    assert!(text.contains("day=2026-10-02") && text.contains("day=2026-10-04"));
    assert!(text.contains("id=\"newer\""), "its newest day says when there is a newer one");
    // A fleet of which one meter is up to date has its own causes.
    assert!(!get(&fleet().await.state(None), "/").await.1.contains("fleet behind"));
}
