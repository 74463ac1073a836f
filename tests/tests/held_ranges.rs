//! What the cloud holds, asked by the gateway's client of the head-end's real HTTP server over a real store.

#![expect(clippy::unwrap_used, reason = "a test says what went wrong by panicking")]

use std::path::Path;
use std::sync::Arc;

use cloud::clock::SystemClock;
use cloud::embedded::{self, Opened, Options};
use cloud::http::{self, HttpServices};
use cloud::payloads::Payloads;
use cloud::store::{ReadingStore, StoreBatch};
use gateway::agenda::cursor::Span;
use gateway::config::Config;
use gateway::held::{HeldAsker, HeldRanges, HttpHeld, Question};
use gateway::uploader::{HttpUploader, UploadError};
use protocols::metering::{Quality, Series, StampedBy, Unit, UtcMillis};
use protocols::uplink::topics::HeldGrid;
use protocols::uplink::{Batch, BatchId, BlockRow, Books, GatewayId, SeriesBlock};

const QUARTER_MS: i64 = 900_000;
const IMPORT: &str = "KFM:1 1-0:1.8.0 register";
const POWER: &str = "KFM:1 1-0:1.25.0 average 900s";

fn at(quarter: i64) -> UtcMillis {
    UtcMillis(1_795_392_000_000 + quarter * QUARTER_MS)
}

/// Of every quarter but those in `lost`; the import register was read live, too, all the time and beside the grid.
fn block(series: &str, lost: std::ops::Range<i64>) -> SeriesBlock {
    let row = |captured_at: UtcMillis| BlockRow {
        captured_at,
        nth: 0,
        mantissa: 1,
        quality: Quality::GOOD,
        read_at: at(400),
        occurred_at: None,
        clock_offset_ms: None,
    };
    let captured = (0..300).filter(|quarter| !lost.contains(quarter)).map(at);
    let live = (0..300).filter(|_| series == IMPORT).map(|quarter| at(quarter).plus_ms(7_123));
    let mut rows: Vec<BlockRow> = captured.chain(live).map(row).collect();
    rows.sort_by_key(|row| row.captured_at);
    let series: Series = series.parse().unwrap();
    SeriesBlock { series, unit: Unit::WATT, scaler: 0, stamped_by: StampedBy::Meter, rows }
}

async fn fill(store: &dyn ReadingStore) {
    let mut batch = Batch {
        id: BatchId { gateway: GatewayId::new("gw-old").unwrap(), incarnation: 1, seq: 1 },
        sealed_at: at(400),
        blocks: vec![block(IMPORT, 100..220), block(POWER, 90..210)],
        events: Vec::new(),
        inventory: None,
        books: Books::default(),
    };
    batch.books = batch.compute_books();
    let sealed_effective = batch.sealed_at;
    store.upsert(&[StoreBatch { batch: Arc::new(batch), sealed_effective }]).await.unwrap();
}

fn client(folder: &Path, port: u16, token: &str) -> HttpHeld {
    let file = folder.join("token");
    std::fs::write(&file, token).unwrap();
    let text = format!("[gateway]\nid = \"gw-new\"\n[cloud]\ntoken_file = \"{}\"", file.display());
    let checked = Config::parse(&text, Path::new("gateway.toml")).and_then(Config::check).unwrap();
    HttpHeld::new(checked.gateway, HttpUploader::new("127.0.0.1".to_owned(), port, checked.token))
}

/// Control, seen to fail: the head-end taking any distance up to a step as held.
#[test]
fn a_new_gateway_is_told_what_the_old_one_has_delivered() {
    actix::System::new().block_on(async {
        let folder = tempfile::tempdir().unwrap();
        let Opened { store, .. } = embedded::open(&folder.path().join("data"), &Options::default()).unwrap();
        fill(&store).await;
        let tokens = folder.path().join("tokens");
        std::fs::create_dir(&tokens).unwrap();
        std::fs::write(tokens.join("gw-new"), "of-the-new-one\n").unwrap();
        let services = HttpServices {
            payloads: Payloads::local(&folder.path().join("objects")).unwrap(),
            store: Arc::new(store),
            clock: Arc::new(SystemClock),
            metrics: Arc::default(),
            health: Arc::default(),
            tokens_dir: Some(tokens),
        };
        let listener = http::bind("127.0.0.1:0", true).unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = http::serve(listener, services, |_| {}).unwrap();
        let handle = server.handle();
        let served = actix::spawn(server);

        let grid = HeldGrid { from: at(-50), to: at(299), step_s: 900 };
        let (import, power): (Series, Series) = (IMPORT.parse().unwrap(), POWER.parse().unwrap());
        let held = client(folder.path(), port, "of-the-new-one");
        let ranges = held.ranges_held(&import, &grid).await.unwrap();
        assert_eq!(ranges, [(at(0), at(99)), (at(220), at(299))]);
        // Of two columns, what both have; and the last hour of each range is read again.
        let asker = HeldAsker::new(Arc::new(held));
        let question =
            Question { series: vec![import.clone(), power], grid, margin_ms: 4 * QUARTER_MS, label_lag_ms: 0 };
        let spans = asker.ask(question.clone()).await.unwrap().unwrap();
        let span = |first, last| Span::new(at(first), at(last).plus_ms(1 - 4 * QUARTER_MS));
        assert_eq!(spans, [span(0, 89), span(220, 299)]);
        // Another's token, and a question that makes no sense.
        let stranger = client(folder.path(), port, "of-another");
        assert!(matches!(stranger.ranges_held(&import, &grid).await, Err(UploadError::Unauthorized(401))));
        let held = client(folder.path(), port, "of-the-new-one");
        let endless = HeldGrid { step_s: 1, to: at(9_999), ..grid };
        let error = held.ranges_held(&import, &endless).await.unwrap_err().to_string();
        assert!(error.contains("400") && error.contains("at most 100000"), "{error}");
        handle.stop(false).await;
        served.await.unwrap().unwrap();
        let unreachable = held.ranges_held(&import, &grid).await.unwrap_err();
        assert!(matches!(unreachable, UploadError::Unreachable { .. }), "{unreachable:?}");
        assert!(asker.ask(question).await.unwrap().is_err());
    });
}
