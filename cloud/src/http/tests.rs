use actix_web::dev::Payload;
use actix_web::error::PayloadError;
use actix_web::http::StatusCode;
use actix_web::http::header::AUTHORIZATION;
use actix_web::test::{TestRequest, call_service, init_service, read_body};
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::future::join_all;
use futures_util::stream;
use protocols::metering::UtcMillis;
use protocols::uplink::Sha256;
use protocols::uplink::limits::PAYLOAD_BYTES_MAX;
use protocols::uplink::topics::{SHA256_HEADER, payload_path};

use super::*;
use crate::clock::ManualClock;
use crate::health::Part;
use crate::payloads::open::Opening;
use crate::store::StoreBatch;
use crate::store::embedded::EmbeddedStore;
use crate::telemetry::Metric;
use crate::testing::{T0, batch, sealed};

struct Server {
    folder: tempfile::TempDir,
    services: HttpServices,
    store: EmbeddedStore,
}

impl Server {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (_, store) = crate::embedded::in_memory(1, 7).unwrap();
        let services = HttpServices {
            store: Arc::new(store.clone()),
            payloads: Payloads::local(&folder.path().join("objects")).unwrap(),
            clock: Arc::new(ManualClock::new(T0)),
            metrics: Arc::default(),
            health: Arc::default(),
            tokens_dir: None,
        };
        Self { folder, services, store }
    }

    fn with_tokens() -> Self {
        let mut server = Self::new();
        let tokens = server.folder.path().join("tokens");
        std::fs::create_dir(&tokens).unwrap();
        std::fs::write(tokens.join("gw-1"), "secret of gw-1\n").unwrap();
        std::fs::write(tokens.join("gw-2"), "secret of gw-2\n").unwrap();
        std::fs::write(tokens.join("gw-3"), "\n").unwrap();
        server.services.tokens_dir = Some(tokens);
        server
    }

    async fn call(&self, request: TestRequest) -> (StatusCode, String) {
        let uploads = upload::Uploads::new(self.services.clone());
        let app = App::new()
            .app_data(Data::new(self.services.clone()))
            .app_data(Data::new(uploads))
            .app_data(Data::new(held::Held::new(self.services.clone())))
            .configure(configure)
            .configure(upload::configure)
            .configure(held::configure);
        let app = init_service(app).await;
        let response = call_service(&app, request.to_request()).await;
        let status = response.status();
        (status, String::from_utf8(read_body(response).await.to_vec()).unwrap())
    }
}

fn put(gateway: u32, seq: u64) -> TestRequest {
    let (reference, payload) = sealed(&batch(gateway, seq, 5), 1);
    TestRequest::put()
        .uri(&payload_path(&reference.id))
        .insert_header((SHA256_HEADER, reference.sha256.to_string()))
        .set_payload(payload.bytes)
}

#[actix_web::test]
async fn an_upload_is_stored_once_and_may_be_repeated() {
    let server = Server::new();
    assert_eq!(server.call(put(1, 1)).await.0, StatusCode::CREATED);
    assert_eq!(server.call(put(1, 1)).await.0, StatusCode::OK);
    let opened = server.services.payloads.open(&sealed(&batch(1, 1, 5), 1).0, T0).await.unwrap();
    assert!(matches!(opened, Opening::Batch(_)));
    assert_eq!(server.services.metrics.value(Metric::UploadsStored), 1);
    assert_eq!(server.services.metrics.value(Metric::UploadsAgain), 1);
}

#[actix_web::test]
async fn what_is_not_what_it_says_is_not_stored() {
    let server = Server::new();
    let wrong_hash = put(1, 1).insert_header((SHA256_HEADER, "0".repeat(64)));
    let (status, text) = server.call(wrong_hash).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(text.contains("instead of"), "{text}");
    let no_hash = TestRequest::put().uri("/v1/payloads/gw-1/00000000000000aa/1").set_payload("x");
    assert_eq!(server.call(no_hash).await.0, StatusCode::BAD_REQUEST);
    for path in [
        "gw-1/00aa/1",
        "gw-1/00000000000000aa/0",
        "gw-1/00000000000000aa/x",
        ".gw/00000000000000aa/1",
        "%2e%2e/00000000000000aa/1",
    ] {
        let request = put(1, 1).uri(&format!("/v1/payloads/{path}"));
        assert_eq!(server.call(request).await.0, StatusCode::BAD_REQUEST, "{path}");
    }
    let objects = std::fs::read_dir(server.folder.path().join("objects")).unwrap().count();
    assert_eq!(objects, 0, "nothing was written");
    assert_eq!(server.services.metrics.value(Metric::UploadsRefused), 7);
}

#[actix_web::test]
async fn an_upload_beyond_the_limit_is_cut_whatever_length_it_announces() {
    let server = Server::new();
    let long = vec![7u8; PAYLOAD_BYTES_MAX as usize + 1];
    assert_eq!(server.call(put(1, 1).set_payload(long.clone())).await.0, StatusCode::PAYLOAD_TOO_LARGE);
    let lying = put(1, 1).set_payload(long).insert_header(("content-length", "5"));
    assert_eq!(server.call(lying).await.0, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(server.services.metrics.value(Metric::UploadsRefused), 2);
}

/// Negative controls: let `OfGateways::take` count nothing; leave out the drop of `Place`.
#[actix_web::test]
async fn a_gateway_has_a_few_places_for_uploads_and_leaves_the_others_theirs() {
    let server = Server::new();
    let uploads = upload::Uploads::new(server.services.clone());
    let app = init_service(App::new().app_data(Data::new(uploads)).configure(upload::configure)).await;
    let silent = (1..=upload::OF_A_GATEWAY_AT_ONCE as u64).map(|seq| {
        let body = Payload::from(stream::pending::<Result<Bytes, PayloadError>>().boxed_local());
        call_service(&app, put(1, seq).to_request().replace_payload(body).0)
    });
    let others = async {
        let refused = call_service(&app, put(1, 9).to_request()).await.status();
        [refused, call_service(&app, put(2, 1).to_request()).await.status()]
    };
    let answers = tokio::select! {
        biased;
        _ = join_all(silent) => unreachable!("these bodies do not end"),
        answers = others => answers,
    };
    assert_eq!(answers, [StatusCode::TOO_MANY_REQUESTS, StatusCode::CREATED]);
    // Their connections are gone.
    assert_eq!(call_service(&app, put(1, 9).to_request()).await.status(), StatusCode::CREATED);
}

/// Negative control: read without `PACE` (`upload::read`).
#[actix_web::test]
async fn a_body_that_dribbles_is_cut_and_a_slow_one_gets_through() {
    let server = Server::new();
    let uploads = upload::Uploads::new(server.services.clone());
    let app = init_service(App::new().app_data(Data::new(uploads)).configure(upload::configure)).await;
    let bytes = vec![7u8; 1_000];
    tokio::time::pause();
    for (bytes_a_second, status) in [(20, StatusCode::CREATED), (10, StatusCode::REQUEST_TIMEOUT)] {
        let pieces: Vec<Bytes> = bytes.chunks(bytes_a_second).map(Bytes::copy_from_slice).collect();
        let body = stream::iter(pieces).then(|piece| async move {
            tokio::time::sleep(Duration::from_secs(1)).await;
            Ok::<_, PayloadError>(piece)
        });
        let request = TestRequest::put()
            .uri(&payload_path(&batch(1, 1, 1).id))
            .insert_header((SHA256_HEADER, Sha256::of(&bytes).to_string()))
            .to_request();
        let (request, _) = request.replace_payload(Payload::from(body.boxed_local()));
        assert_eq!(call_service(&app, request).await.status(), status, "{bytes_a_second} bytes a second");
    }
}

/// Control: the right token of the right gateway is let in.
#[actix_web::test]
async fn with_tokens_a_gateway_uploads_as_itself_only() {
    let server = Server::with_tokens();
    let bearer = |token: &str| (AUTHORIZATION, format!("Bearer {token}"));
    assert_eq!(server.call(put(1, 1).insert_header(bearer("secret of gw-1"))).await.0, StatusCode::CREATED);
    for request in [
        put(1, 2),
        put(1, 2).insert_header(bearer("secret of gw-2")),
        put(1, 2).insert_header(bearer("")),
        put(1, 2).insert_header((AUTHORIZATION, "secret of gw-1")),
        // No token is no password.
        put(3, 1).insert_header(bearer("")),
        put(9, 1).insert_header(bearer("secret of gw-1")),
    ] {
        let (status, text) = server.call(request).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED);
        assert!(!text.contains("secret"));
    }
}

#[actix_web::test]
async fn the_time_is_the_clouds() {
    let server = Server::new();
    let (status, text) = server.call(TestRequest::get().uri("/v1/time")).await;
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!((status, value["time_ms"].as_i64()), (StatusCode::OK, Some(T0.0)));
    assert!(UtcMillis(value["time_ms"].as_i64().unwrap()) == T0);
}

#[actix_web::test]
async fn readiness_names_what_is_missing() {
    let server = Server::new();
    assert_eq!(server.call(TestRequest::get().uri("/healthz")).await.0, StatusCode::OK);
    let (status, text) = server.call(TestRequest::get().uri("/readyz")).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(text.contains("intake") && text.contains("store"), "{text}");
    server.services.health.set(Part::Landing, false);
    let (_, text) = server.call(TestRequest::get().uri("/readyz")).await;
    assert!(text.contains(r#""engines":["objects"]"#), "{text}");
    let all = [Part::Worker, Part::Store, Part::Log, Part::Registry, Part::Landing, Part::Intake, Part::Receipts];
    for part in all.into_iter().chain([Part::Archive]) {
        server.services.health.set(part, true);
    }
    assert_eq!(server.call(TestRequest::get().uri("/readyz")).await.0, StatusCode::OK);
}

#[actix_web::test]
async fn metrics_are_text() {
    let server = Server::new();
    server.services.metrics.add(Metric::RefsApplied, 1);
    let (_, text) = server.call(TestRequest::get().uri("/metrics")).await;
    assert!(text.contains("cloud_refs_total{outcome=\"applied\"} 1"));
    assert!(text.contains("cloud_part_missing{part=\"store\"} 1"), "{text}");
}

/// A gateway that is told 404 would take the cloud for another one.
///
/// Negative control: leave out the default of `waiting`.
#[actix_web::test]
async fn while_engines_are_waited_for_the_time_is_told_and_the_rest_is_unavailable() {
    let server = Server::new();
    server.services.health.set(Part::Landing, false);
    let HttpServices { clock, metrics, health, .. } = server.services.clone();
    let app = init_service(App::new().configure(move |app| waiting(app, &clock, &metrics, &health))).await;
    let mut answers = Vec::new();
    for request in [TestRequest::get().uri("/v1/time"), TestRequest::get().uri("/readyz"), put(1, 1)] {
        let response = call_service(&app, request.to_request()).await;
        let status = response.status();
        answers.push((status.as_u16(), String::from_utf8(read_body(response).await.to_vec()).unwrap()));
    }
    let [time, ready, upload] = answers.try_into().unwrap();
    assert!(time.0 == 200 && time.1.contains(&T0.0.to_string()), "{time:?}");
    assert!(ready.0 == 503 && ready.1.contains(r#""engines":["objects"]"#), "{ready:?}");
    assert_eq!(upload, ready);
}

#[test]
fn an_open_listener_without_tokens_is_refused_with_a_hint() {
    let error = bind("0.0.0.0:0", false).unwrap_err();
    assert!(matches!(error, BindError::Open { .. }) && error.hint().is_some());
    assert!(bind("0.0.0.0:0", true).is_ok() && bind("127.0.0.1:0", false).is_ok());
    assert!(matches!(bind("nowhere", false), Err(BindError::Address { .. })));
}

#[test]
fn a_port_that_is_taken_is_said_clearly() {
    let first = bind("127.0.0.1:0", false).unwrap();
    let error = bind(&first.local_addr().unwrap().to_string(), false).unwrap_err();
    assert!(error.hint().unwrap().contains("another program"), "{error}");
}

const HELD: &str = "/v1/held/gw-1?meter=KFM:1&code=1-0:1.8.0&kind=register";

/// Every quarter of an hour from `first` to `last` but those in `but`, and as often a read of the same register beside the grid.
async fn with_quarters(server: &Server, first: i64, last: i64, but: &[i64]) {
    use crate::api::testing::{batch, block, series};
    use protocols::metering::Kind;
    let at = |quarter: i64| T0.plus_ms(quarter * 900_000 - T0.0 % 900_000);
    let rows = (first..=last).flat_map(|quarter| {
        let captured = (!but.contains(&quarter)).then_some((at(quarter), 0, quarter));
        captured.into_iter().chain([(at(quarter).plus_ms(4_321), 0, quarter)])
    });
    let block = block(series("KFM:1", "1-0:1.8.0", Kind::Register, 0), rows);
    let batch = batch("gw-9", 1, vec![block], None);
    let sealed_effective = batch.sealed_at;
    server.store.upsert(&[StoreBatch { batch: Arc::new(batch), sealed_effective }]).await.unwrap();
}

fn grid(first: i64, last: i64) -> String {
    let at = |quarter: i64| T0.plus_ms(quarter * 900_000 - T0.0 % 900_000);
    format!("{HELD}&from={}&to={}&step_s=900", at(first), at(last))
}

async fn held_of(server: &Server, path: &str) -> Vec<(String, String)> {
    let (status, text) = server.call(TestRequest::get().uri(path)).await;
    assert_eq!(status, StatusCode::OK, "{path}: {text}");
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    let text = |range: &serde_json::Value, key: &str| range[key].as_str().unwrap().to_owned();
    value["held"].as_array().unwrap().iter().map(|range| (text(range, "first"), text(range, "last"))).collect()
}

/// Control, seen to fail: any distance up to a step taken as held, as the registers beside the grid have it.
#[actix_web::test]
async fn what_is_held_is_told_by_the_points_of_the_grid() {
    let server = Server::new();
    with_quarters(&server, 0, 40, &[7, 8, 20]).await;
    let at = |quarter: i64| T0.plus_ms(quarter * 900_000 - T0.0 % 900_000).to_string();
    let wanted = [(0, 6), (9, 19), (21, 40)].map(|(first, last)| (at(first), at(last)));
    assert_eq!(held_of(&server, &grid(-5, 99)).await, wanted);
    assert_eq!(held_of(&server, &grid(7, 8)).await, []);
    assert_eq!(held_of(&server, &grid(-5, 99).replace("KFM:1", "KFM:2")).await, []);
    // A hole at every other quarter: only the newest ranges are named.
    let server = Server::new();
    with_quarters(&server, 0, 400, &(0..400).step_by(2).collect::<Vec<_>>()).await;
    let held = held_of(&server, &grid(0, 400)).await;
    assert_eq!((held.len(), held.last().unwrap().1.clone()), (128, at(400)));
}

#[actix_web::test]
async fn a_wrong_question_is_refused_with_a_hint() {
    let server = Server::new();
    let right = grid(0, 4);
    for (path, hint) in [
        (HELD.to_owned(), "an instant such as"),
        (right.replace("&step_s=900", ""), "seconds between two captures"),
        (right.replace("step_s=900", "step_s=0"), "a step_s of at least 1"),
        (right.replace("step_s=900", "step_s=x"), "seconds between two captures"),
        (grid(4, 0), "the earlier instant as from"),
        (grid(0, 100_000), "at most 100000"),
        (right.replace("register", "interval"), "seconds, such as 900"),
        (right.replace("register", "nothing"), "one of register"),
        (right.replace("1-0:1.8.0", "x"), "an OBIS code"),
        (format!("{right}&x=1"), "known here: meter"),
        (right.replace("gw-1", ".gw"), "the id of a gateway"),
    ] {
        let (status, text) = server.call(TestRequest::get().uri(&path)).await;
        let value: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
        assert_eq!(status, StatusCode::BAD_REQUEST, "{path}: {text}");
        assert!(value["hint"].as_str().unwrap().contains(hint), "{path}: {text}");
    }
    assert_eq!(server.services.metrics.value(Metric::HeldNotAnswered), 11);
}

/// Control: the right token of the right gateway is let in.
#[actix_web::test]
async fn with_tokens_a_gateway_asks_as_itself_only() {
    let server = Server::with_tokens();
    let ask =
        |token: &str| TestRequest::get().uri(&grid(0, 4)).insert_header((AUTHORIZATION, format!("Bearer {token}")));
    assert_eq!(server.call(ask("secret of gw-1")).await.0, StatusCode::OK);
    for request in [ask("secret of gw-2"), ask(""), TestRequest::get().uri(&grid(0, 4))] {
        let (status, text) = server.call(request).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED);
        assert!(text.contains("no valid token for this gateway") && !text.contains("secret"), "{text}");
    }
}
