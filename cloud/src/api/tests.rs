use std::collections::BTreeSet;

use actix_web::App;
use actix_web::body::MessageBody as _;
use actix_web::http::StatusCode;
use actix_web::http::header::{AUTHORIZATION, CONTENT_TYPE, COOKIE, HOST};
use actix_web::test::{TestRequest, call_service, init_service};
use actix_web::web::Data;
use protocols::metering::{Kind, MeterId};
use protocols::uplink::{Inventory, MeterState};
use serde_json::Value;

use super::live::{CLIENTS_MAX, Follower};
use super::testing::{
    HALF_HOUR_S, TOKEN, batch, block, call, entry, fleet, gateway, get, half_hours, json, now, series,
};
use super::{ApiState, OPENAPI, SESSION_COOKIE, configure, routes};

const INTERVALS: &str = "/v1/readings?meter=KFM:1&code=1-0:1.29.0&kind=interval&period_s=1800";
const REGISTER: &str = "/v1/readings?meter=KFM:1&code=1-0:1.8.0&kind=register";

fn texts<'a>(value: &'a Value, list: &str, key: &str) -> Vec<&'a str> {
    value[list].as_array().unwrap().iter().map(|row| row[key].as_str().unwrap_or("-")).collect()
}

#[actix_web::test]
async fn pages_hold_every_reading_once() {
    let state = fleet().await.state(None);
    let range = format!("{INTERVALS}&from=2026-01-01T00:00:00Z&to=2026-10-28T00:00:00Z");
    let whole = json(&state, &range).await;
    let all = texts(&whole, "readings", "captured_at");
    assert_eq!((all.len(), &whole["next"]), (288, &Value::Null));
    let (mut paged, mut after) = (Vec::new(), String::new());
    loop {
        let page = json(&state, &format!("{range}&limit=7&after={after}")).await;
        paged.extend(texts(&page, "readings", "captured_at").into_iter().map(str::to_owned));
        match page["next"].as_str() {
            Some(next) => after = next.to_owned(),
            None => break,
        }
        assert!(paged.len() <= all.len(), "the pages come to no end");
    }
    assert_eq!(paged, all);
    // A page that is exactly full at the end says that there is no other.
    assert_eq!(json(&state, &format!("{range}&limit=288")).await["next"], Value::Null);
    let twice = "/v1/readings?meter=KFM:4&code=cad:power&kind=instant&from=2026-10-26T00:00:00Z&limit=1";
    let first = json(&state, twice).await;
    let second = json(&state, &format!("{twice}&after={}", first["next"].as_str().unwrap())).await;
    assert_eq!((&first["readings"][0]["nth"], &second["readings"][0]["nth"]), (&0.into(), &1.into()));
    assert_eq!(first["readings"][0]["captured_at"], second["readings"][0]["captured_at"]);
}

/// Negative control: leave the readings out of `last_read_at` (`fleet.rs`).
#[actix_web::test]
async fn a_meter_was_read_when_its_last_reading_was_though_its_inventory_is_older() {
    let world = fleet().await;
    let captured_at = now().plus_ms(-30_000);
    let live = block(series("KFM:2", "1-0:1.8.0", Kind::Register, 0), [(captured_at, 0, 7)].into_iter());
    world.deliver(batch("gw-1", 3, vec![live], None), now()).await;
    let meters = json(&world.state(None), "/v1/meters").await;
    let meter =
        |id: &str| meters["meters"].as_array().unwrap().iter().find(|meter| meter["meter"] == id).unwrap().clone();
    let read_at = |id: &str| meter(id)["last_read_at"].as_str().unwrap().to_owned();
    assert_eq!(read_at("KFM:2"), captured_at.plus_ms(5_000).to_string());
    assert_eq!(read_at("KFM:3"), now().plus_ms(-60_000).to_string(), "as its inventory says");
}

#[actix_web::test]
async fn local_days_have_23_24_or_25_hours() {
    let state = fleet().await.state(None);
    for (day, count, first, last) in [
        ("2026-03-29", 46, "2026-03-29T00:00:00+01:00", "2026-03-30T00:00:00+02:00"),
        ("2026-10-24", 44, "2026-10-24T02:00:00+02:00", "2026-10-25T00:00:00+02:00"),
        ("2026-10-25", 50, "2026-10-25T00:00:00+02:00", "2026-10-26T00:00:00+01:00"),
    ] {
        let page = json(&state, &format!("{INTERVALS}&day={day}&tz=Europe/Berlin")).await;
        let rows = page["readings"].as_array().unwrap();
        assert_eq!(rows.len(), count, "{day}");
        assert_eq!(rows[0]["started_at_local"], first);
        assert_eq!(rows[count - 1]["captured_at_local"], last);
        for pair in rows.windows(2) {
            assert_eq!(pair[0]["captured_at"], pair[1]["started_at"], "{day} has no holes");
        }
    }
    assert_eq!(json(&state, &format!("{INTERVALS}&day=2026-03-29")).await["readings"].as_array().unwrap().len(), 48);
}

#[actix_web::test]
async fn an_interval_belongs_to_the_range_it_ends_in_and_an_instant_to_both_its_edges() {
    let state = fleet().await.state(None);
    let edges = "from=2026-10-25T01:00:00Z&to=2026-10-25T02:00:00%2B00:00";
    let intervals = json(&state, &format!("{INTERVALS}&{edges}")).await;
    assert_eq!(texts(&intervals, "readings", "captured_at"), ["2026-10-25T01:30:00Z", "2026-10-25T02:00:00Z"]);
    let registers = json(&state, &format!("{REGISTER}&{edges}")).await;
    assert_eq!(texts(&registers, "readings", "captured_at"), ["2026-10-25T01:00:00Z", "2026-10-25T02:00:00Z"]);
    let first = &registers["readings"][0];
    assert_eq!((&first["value"], &first["value_double"]), (&"50000.01".into(), &50000.01.into()));
    assert_eq!((&first["unit"], &first["quality"]), (&"Wh".into(), &"good".into()));
}

#[actix_web::test]
async fn csv_says_start_and_end_in_utc_and_local_time() {
    let state = fleet().await.state(None);
    let path = format!("{INTERVALS}&from=2026-10-25T00:30:00Z&to=2026-10-25T01:30:00Z&tz=Europe/Berlin&format=csv");
    let (status, headers, text) = call(&state, TestRequest::get().uri(&path)).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(headers.get(CONTENT_TYPE).unwrap(), "text/csv; charset=utf-8; header=present");
    let expected = "meter,code,kind,period_s,start_utc,end_utc,start_local,end_local,nth,value,unit,quality,read_at,\
        occurred_at,gateway\r\n\
        KFM:1,1-0:1.29.0,interval,1800,2026-10-25T00:30:00Z,2026-10-25T01:00:00Z,2026-10-25T02:30:00+02:00,\
        2026-10-25T02:00:00+01:00,0,10.50,Wh,good,2026-10-25T01:00:05Z,,gw-1\r\n\
        KFM:1,1-0:1.29.0,interval,1800,2026-10-25T01:00:00Z,2026-10-25T01:30:00Z,2026-10-25T02:00:00+01:00,\
        2026-10-25T02:30:00+01:00,0,10.51,Wh,good,2026-10-25T01:30:05Z,,gw-1\r\n";
    assert_eq!(text, expected);
    let (_, registers) = get(&state, &format!("{REGISTER}&day=2026-10-25&format=csv&limit=1")).await;
    let line = registers.lines().nth(1).unwrap();
    assert_eq!(
        line,
        "KFM:1,1-0:1.8.0,register,0,,2026-10-25T00:00:00Z,,2026-10-25T00:00:00+00:00,0,50000.00,Wh,good,\
         2026-10-25T00:00:05Z,,gw-1"
    );
    assert_eq!(registers.lines().count(), 2);
}

#[actix_web::test]
async fn a_long_csv_file_holds_every_reading_once() {
    let world = fleet().await;
    let half_hours =
        block(series("KFM:5", "1-0:1.29.0", Kind::Interval, HALF_HOUR_S), half_hours("2025-01-01T00:00:00Z", 4_000));
    world.deliver(batch("gw-2", 2, vec![half_hours], None), now()).await;
    let state = world.state(None);
    let path = INTERVALS.replace("KFM:1", "KFM:5") + "&from=2025-01-01T00:00:00Z&format=csv";
    for (limit, count) in [("", 4_000), ("&limit=2001", 2_001), ("&limit=2000", 2_000), ("&limit=3", 3)] {
        let (_, text) = get(&state, &format!("{path}{limit}")).await;
        let lines: Vec<&str> = text.lines().skip(1).collect();
        let different: BTreeSet<&str> = lines.iter().copied().collect();
        assert_eq!((lines.len(), different.len()), (count, count), "{limit}");
    }
}

#[actix_web::test]
async fn wrong_parameters_are_refused_with_a_hint() {
    let state = fleet().await.state(None);
    let day = "&day=2026-10-25";
    for (path, hint) in [
        ("/v1/readings".to_owned(), "/v1/meters"),
        (format!("{INTERVALS}{day}&x=1"), "known here: meter, code"),
        (format!("{INTERVALS}{day}{day}"), "once"),
        (INTERVALS.to_owned(), "give day and tz"),
        (format!("{INTERVALS}{day}&from=2026-10-25T00:00:00Z"), "either day"),
        (format!("{INTERVALS}&to=2026-10-25T00:00:00Z"), "give day and tz"),
        (format!("{INTERVALS}&from=2026-10-25"), "2026-03-29T00:00:00Z"),
        (format!("{INTERVALS}&from=2026-10-25T00:00:00+02:00"), "+ is %2B"),
        (format!("{INTERVALS}&from=2026-10-25T00:00:00Z&to=2026-10-24T00:00:00Z"), "earlier instant"),
        (format!("{INTERVALS}&day=2026-02-29"), "a day such as"),
        (format!("{INTERVALS}{day}&tz=Europe/Nowhere"), "Europe/Berlin"),
        (format!("{INTERVALS}{day}&limit=0"), "from 1 to 10000"),
        (format!("{INTERVALS}{day}&limit=10001"), "from 1 to 10000"),
        (format!("{INTERVALS}{day}&limit=many"), "from 1 to 10000"),
        (format!("{INTERVALS}{day}&after=yesterday"), "`next`"),
        (format!("{INTERVALS}{day}&format=xml"), "json or csv"),
        (format!("/v1/readings?meter=KFM:1&code=1-0:1.29.0&kind=interval{day}"), "/v1/meters/KFM:1"),
        (format!("{REGISTER}&period_s=900{day}"), "leave period_s out"),
        (format!("/v1/readings?meter=KFM:1&code=1-0:1.8.0&kind=sum{day}"), "register, interval"),
        (format!("/v1/readings?meter=KFM:1&code=energy&kind=register{day}"), "OBIS code"),
        (format!("/v1/readings?meter=a%20b&code=1-0:1.8.0&kind=register{day}"), "/v1/meters"),
        ("/v1/meters?limit=0".to_owned(), "from 1 to"),
        ("/v1/meters/a%20b".to_owned(), "/v1/meters"),
        ("/v1/gateways?page=2".to_owned(), "known here: none"),
        ("/v1/gateways/.a/batches".to_owned(), "/v1/gateways"),
        ("/v1/gateways/gw-1/batches?after=1".to_owned(), "`next`"),
        ("/v1/live?meter=%2F".to_owned(), "/v1/meters"),
        ("/v1/completeness?day=today".to_owned(), "a day such as"),
        ("/v1/completeness?tz=Mars".to_owned(), "Europe/Berlin"),
    ] {
        let (status, text) = get(&state, &path).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{path}: {text}");
        let body: Value = serde_json::from_str(&text).unwrap();
        assert!(
            body["hint"].as_str().unwrap().contains(hint) && !body["error"].as_str().unwrap().is_empty(),
            "{path}: {text}"
        );
    }
    for path in [
        format!("{INTERVALS}{day}").replace("KFM:1", "KFM:99"),
        format!("{REGISTER}{day}").replace("1.8.0", "2.8.0"),
        "/v1/meters/KFM:99".to_owned(),
        "/v1/gateways/gw-9/batches".to_owned(),
    ] {
        let (status, text) = get(&state, &path).await;
        assert_eq!(status, StatusCode::NOT_FOUND, "{path}: {text}");
        assert!(text.contains("hint"), "{text}");
    }
    // Control: a series that is expected and has no reading yet is there.
    assert!(
        json(&state, &format!("{INTERVALS}{day}").replace("KFM:1", "KFM:2")).await["readings"]
            .as_array()
            .unwrap()
            .is_empty()
    );
}

#[actix_web::test]
async fn meters_are_listed_with_state_and_last_reading() {
    let state = fleet().await.state(None);
    let all = json(&state, "/v1/meters").await;
    assert_eq!(texts(&all, "meters", "meter"), ["KFM:1", "KFM:2", "KFM:3", "KFM:4", "-"]);
    assert_eq!(texts(&all, "meters", "state"), ["ok", "silent", "wrong identity", "unknown", "unknown"]);
    assert_eq!(all["meters"][0]["last_reading"]["captured_at"], "2026-10-27T00:00:00Z");
    assert_eq!(all["meters"][1]["last_reading"], Value::Null);
    let (mut paged, mut after) = (Vec::new(), String::new());
    for _ in 0..3 {
        let page = json(&state, &format!("/v1/meters?limit=2&after={after}")).await;
        paged.extend(texts(&page, "meters", "name").into_iter().map(str::to_owned));
        after = page["next"].as_str().unwrap_or_default().to_owned();
    }
    assert_eq!((paged.len(), after.as_str()), (5, ""));
    assert_eq!(paged, texts(&all, "meters", "name"));
    assert_eq!(texts(&json(&state, "/v1/meters?state=silent").await, "meters", "meter"), ["KFM:2"]);
    assert_eq!(texts(&json(&state, "/v1/meters?gateway=gw-2").await, "meters", "meter"), ["KFM:3", "KFM:4"]);
    let one = json(&state, "/v1/meters/KFM:1").await;
    assert_eq!(texts(&one, "series", "code"), ["1-0:1.29.0", "1-0:1.8.0"]);
    assert_eq!(one["expected"][0]["cadence_s"], HALF_HOUR_S);
}

#[actix_web::test]
async fn gateways_are_listed_and_their_batches_go_back_in_time() {
    let world = fleet().await;
    for seq in 3..=1_300 {
        world.deliver(batch("gw-1", seq, Vec::new(), None), now()).await;
    }
    let state = world.state(None);
    let all = json(&state, "/v1/gateways").await;
    assert_eq!(texts(&all, "gateways", "gateway"), ["gw-1", "gw-2"]);
    assert_eq!((&all["gateways"][0]["meters"], &all["gateways"][0]["meters_ok"]), (&3.into(), &1.into()));
    assert_eq!(all["gateways"][0]["batches_applied"], 1_300);
    let (mut seqs, mut after) = (Vec::new(), String::new());
    loop {
        let page = json(&state, &format!("/v1/gateways/gw-1/batches?limit=499&after={after}")).await;
        seqs.extend(page["batches"].as_array().unwrap().iter().map(|batch| batch["seq"].as_u64().unwrap()));
        match page["next"].as_str() {
            Some(next) => after = next.to_owned(),
            None => break,
        }
        assert!(seqs.len() <= 1_300, "the pages come to no end");
    }
    assert_eq!(seqs, (1..=1_300).rev().collect::<Vec<u64>>());
    let other = json(&state, "/v1/gateways/gw-2/batches").await;
    assert_eq!((&other["batches"][0]["readings"], other["batches"].as_array().unwrap().len()), (&3.into(), 1));
}

/// Control, seen to fail: `is_seen` taking every state for an answer.
#[actix_web::test]
async fn a_meter_that_two_gateways_see_is_an_alarm_that_names_both() {
    let world = fleet().await;
    let state = world.state(None);
    let one = json(&state, "/v1/meters/KFM:1").await;
    assert_eq!(
        (&one["state"], &one["seen_by"], &one["cause"]),
        (&"ok".into(), &["gw-1"].as_slice().into(), &"".into())
    );
    let (_, page) = get(&state, "/").await;
    assert!(!page.contains("two gateways"), "{page}");
    // The roof answers at the barn's gateway, too; the cellar is silent at both.
    let also =
        vec![entry("Shed", Some("KFM:1"), MeterState::Ok, ""), entry("Cellar", Some("KFM:2"), MeterState::Silent, "")];
    world.deliver(batch("gw-2", 2, Vec::new(), Some(Inventory { meters: also })), now()).await;
    let state = world.state(None);
    let found = json(&state, "/v1/meters?state=two%20gateways").await;
    assert_eq!(texts(&found, "meters", "meter"), ["KFM:1"]);
    let one = &found["meters"][0];
    assert_eq!(one["seen_by"], serde_json::json!(["gw-1", "gw-2"]));
    assert_eq!(one["cause"], "seen by gateways gw-1 and gw-2");
    let report = json(&state, "/v1/completeness?day=2026-10-25&tz=Europe/Berlin").await;
    let detail = report["detail"].as_array().unwrap();
    let alarmed: Vec<_> = detail.iter().filter(|meter| meter["seen_by"].as_array().unwrap().len() > 1).collect();
    assert_eq!(alarmed.len(), 1);
    assert_eq!((&alarmed[0]["complete"], &alarmed[0]["meter"]), (&true.into(), &"KFM:1".into()));
    assert_eq!(alarmed[0]["cause"], "seen by gateways gw-1 and gw-2");
    let (_, page) = get(&state, "/?tz=Europe/Berlin").await;
    let (listed, tables) = page.split_once("<section class=\"tiles\"").unwrap();
    assert!(listed.contains("two gateways") && listed.contains("seen by gateways gw-1 and gw-2"), "{listed}");
    assert!(tables.contains("two gateways"));
}

#[actix_web::test]
async fn completeness_is_of_yesterday_unless_a_day_is_named() {
    let state = fleet().await.state(None);
    let report = json(&state, "/v1/completeness?tz=Europe/Berlin").await;
    assert_eq!((&report["day"], &report["meters"], &report["complete"]), (&"2026-10-25".into(), &4.into(), &1.into()));
    assert_eq!(report["detail"][0]["meter"].as_str().or(report["detail"][1]["meter"].as_str()), Some("KFM:1"));
    assert_eq!(json(&state, "/v1/completeness?day=2026-10-23").await["held"], 0);
}

#[actix_web::test]
async fn committed_readings_are_streamed_to_those_who_listen() {
    let world = fleet().await;
    let state = world.state(None);
    let mut follower = Follower::default();
    let (mut all, mut one) =
        (state.live.subscribe(None).unwrap(), state.live.subscribe(MeterId::new("KFM:1").ok()).unwrap());
    follower.look(&state.live, &world.log, now()).await.unwrap();
    assert!(all.try_recv().is_err(), "what was there before is not new");
    let blocks = ["KFM:1", "KFM:2"].map(|meter| {
        block(series(meter, "1-0:1.29.0", Kind::Interval, HALF_HOUR_S), half_hours("2026-10-26T09:00:00Z", 2))
    });
    world.deliver(batch("gw-1", 3, blocks.into(), None), now()).await;
    follower.look(&state.live, &world.log, now()).await.unwrap();
    let text = |bytes: actix_web::web::Bytes| String::from_utf8(bytes.to_vec()).unwrap();
    let (all, one) = (text(all.try_recv().unwrap()), text(one.try_recv().unwrap()));
    assert_eq!((all.matches("event: reading\n").count(), one.matches("event: reading\n").count()), (4, 2));
    assert!(one.contains("KFM:1") && !one.contains("KFM:2") && one.ends_with("\n\n"));
    let data = one.lines().find_map(|line| line.strip_prefix("data: ")).unwrap();
    let reading: Value = serde_json::from_str(data).unwrap();
    assert_eq!((&reading["captured_at"], &reading["value"]), (&"2026-10-26T09:30:00Z".into(), &"10.01".into()));
    assert!((state.live.rate(&gateway("gw-1"), now()) - 4.0 / 300.0).abs() < 1e-9);
    assert!((state.live.rate_of_all(now().plus_ms(600_000))).abs() < 1e-9, "what is old does not count");
    follower.look(&state.live, &world.log, now()).await.unwrap();
}

#[actix_web::test]
async fn who_does_not_keep_up_is_let_go_and_others_are_not() {
    let world = fleet().await;
    let state = world.state(None);
    let mut follower = Follower::default();
    follower.look(&state.live, &world.log, now()).await.unwrap();
    let (mut slow, mut quick) = (state.live.subscribe(None).unwrap(), state.live.subscribe(None).unwrap());
    follower.look(&state.live, &world.log, now()).await.unwrap();
    let mut received = 0;
    for seq in 3..23 {
        let one = block(series("KFM:1", "cad:x", Kind::Instant, 0), [(now().plus_ms(seq * 1000), 0, 1)].into_iter());
        world.deliver(batch("gw-1", seq as u64, vec![one], None), now()).await;
        follower.look(&state.live, &world.log, now()).await.unwrap();
        received += usize::from(quick.try_recv().is_ok());
    }
    assert_eq!(received, 20);
    let mut kept = 0;
    while slow.recv().await.is_some() {
        kept += 1;
    }
    assert_eq!(kept, 16, "its queue, and then the end");
    drop(quick);
    let full: Vec<_> = (0..CLIENTS_MAX).map(|_| state.live.subscribe(None).unwrap()).collect();
    assert!(state.live.subscribe(None).is_err(), "the number of listeners is bounded");
    drop(full);
    assert!(state.live.subscribe(None).is_ok(), "who left makes room");
}

#[actix_web::test]
async fn the_stream_starts_at_once_and_ends_with_the_server() {
    let world = fleet().await;
    let state = world.state(None);
    let app = init_service(App::new().app_data(Data::clone(&state)).configure(configure)).await;
    let response = call_service(&app, TestRequest::get().uri("/v1/live").to_request()).await;
    assert_eq!(response.headers().get(CONTENT_TYPE).unwrap(), "text/event-stream");
    let mut body = Box::pin(response.into_body());
    let first = std::future::poll_fn(|cx| body.as_mut().poll_next(cx)).await.unwrap();
    assert_eq!(first.ok().unwrap(), "retry: 3000\n\n");
    state.live.close();
    assert!(std::future::poll_fn(|cx| body.as_mut().poll_next(cx)).await.is_none());
    assert_eq!(get(&state, "/v1/live").await.0, StatusCode::SERVICE_UNAVAILABLE);
}

fn filled(path: &str) -> String {
    path.replace("{meter}", "KFM:1").replace("{gateway}", "gw-1")
}

#[actix_web::test]
async fn with_a_token_configured_every_route_asks_for_it() {
    let state: Data<ApiState> = fleet().await.state(Some(TOKEN));
    let session = state.viewer.as_ref().unwrap().session(state.clock.now());
    for (path, _) in routes() {
        let request = || TestRequest::get().uri(&filled(path)).insert_header((HOST, "meters.example.org"));
        for refused in [
            request(),
            request().insert_header((AUTHORIZATION, "Bearer another-token-for-tests")),
            request().insert_header((AUTHORIZATION, TOKEN)),
            request().insert_header((COOKIE, format!("{SESSION_COOKIE}={TOKEN}"))),
        ] {
            let (status, headers, text) = call(&state, refused).await;
            assert_eq!(status, StatusCode::UNAUTHORIZED, "{path}");
            assert!(
                headers.contains_key("www-authenticate") && text.contains("hint") && !text.contains("KFM"),
                "{text}"
            );
        }
        if path == "/v1/live" {
            continue;
        }
        for allowed in [
            request().insert_header((AUTHORIZATION, format!("Bearer {TOKEN}"))),
            request().insert_header((COOKIE, format!("a=b; {SESSION_COOKIE}={session}"))),
        ] {
            let status = call(&state, allowed).await.0;
            assert!(
                status == StatusCode::OK || (path == "/v1/readings" && status == StatusCode::BAD_REQUEST),
                "{path} {status}"
            );
        }
    }
}

#[actix_web::test]
async fn without_a_token_only_this_machine_is_answered() {
    let state = fleet().await.state(None);
    let from = |host: &'static str| TestRequest::get().uri("/v1/meters").insert_header((HOST, host));
    assert_eq!(call(&state, from("127.0.0.1:8080")).await.0, StatusCode::OK);
    let (status, _, text) = call(&state, from("rebound.example.org")).await;
    assert_eq!(status, StatusCode::FORBIDDEN, "{text}");
}

/// Routes that other modules register: asked for here, so that the document cannot name one that is not there.
const ELSEWHERE: [(&str, &str); 6] = [
    ("get", "/v1/time"),
    ("get", "/healthz"),
    ("get", "/readyz"),
    ("get", "/metrics"),
    ("get", "/v1/held/{gateway}"),
    ("put", "/v1/payloads/{gateway}/{incarnation}/{seq}"),
];

#[actix_web::test]
async fn the_document_lists_exactly_the_routes_there_are() {
    let document: Value = serde_json::from_str(OPENAPI).unwrap();
    let documented: BTreeSet<(String, String)> = document["paths"]
        .as_object()
        .unwrap()
        .iter()
        .flat_map(|(path, methods)| {
            methods.as_object().unwrap().keys().map(move |method| (method.clone(), path.clone()))
        })
        .collect();
    let ours = routes().into_iter().map(|(path, _)| ("get", path));
    let real: BTreeSet<(String, String)> =
        ours.chain(ELSEWHERE).map(|(method, path)| (method.to_owned(), path.to_owned())).collect();
    assert_eq!(documented, real);
    let app = App::new()
        .configure(crate::http::configure)
        .configure(crate::http::upload::configure)
        .configure(crate::http::held::configure);
    let app = init_service(app).await;
    for (method, path) in ELSEWHERE {
        let request = if method == "put" { TestRequest::put() } else { TestRequest::get() };
        let status = call_service(&app, request.uri(path).to_request()).await.status();
        assert!(status != StatusCode::NOT_FOUND && status != StatusCode::METHOD_NOT_ALLOWED, "{path}: {status}");
    }
}

/// Every reference of the document leads somewhere, and what a route takes is what its document says.
#[actix_web::test]
async fn the_document_is_whole_and_its_parameters_are_those_taken() {
    let document: Value = serde_json::from_str(OPENAPI).unwrap();
    for part in OPENAPI.split("\"#").skip(1) {
        let pointer = part.split('"').next().unwrap();
        assert!(document.pointer(pointer).is_some(), "{pointer} leads nowhere");
    }
    let of = |path: &str| -> BTreeSet<String> {
        let parameters = document["paths"][path]["get"]["parameters"].as_array().unwrap();
        let documented = parameters.iter().filter(|parameter| parameter["in"] == "query");
        documented.map(|parameter| parameter["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(of("/v1/held/{gateway}"), crate::http::held::KNOWN.map(str::to_owned).into());
    let state = fleet().await.state(None);
    for (path, _) in routes() {
        let (_, text) = get(&state, &format!("{}?no-such-parameter=1", filled(path))).await;
        let Ok(body) = serde_json::from_str::<Value>(&text) else { panic!("{path}: {text}") };
        let Some(hint) = body["hint"].as_str() else {
            assert_eq!(path, "/v1/openapi.json");
            continue;
        };
        let taken = hint.strip_prefix("known here: ").unwrap().split(", ").filter(|name| *name != "none");
        assert_eq!(of(path), taken.map(str::to_owned).collect(), "{path}");
    }
}
