//! A meter that is reached by datagrams, some of which get lost.

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use super::*;

/// Hands on what comes from either end in one piece, but for one of five.
async fn lose_some(one: DuplexStream, other: DuplexStream) {
    let ((mut one_in, mut one_out), (mut other_in, mut other_out)) = (tokio::io::split(one), tokio::io::split(other));
    let (mut here, mut there) = (vec![0; 64 * 1024], vec![0; 64 * 1024]);
    let mut datagrams = 0;
    loop {
        let (octets, out) = tokio::select! {
            Ok(count) = one_in.read(&mut here) => (&here[..count], &mut other_out),
            Ok(count) = other_in.read(&mut there) => (&there[..count], &mut one_out),
        };
        if octets.is_empty() {
            return;
        }
        datagrams += 1;
        if datagrams % 5 != 0 && out.write_all(octets).await.is_err() {
            return;
        }
    }
}

/// Control, seen to fail: one attempt, as over TCP.
#[tokio::test(start_paused = true)]
async fn what_gets_lost_on_the_way_is_asked_for_again() {
    let clock = TokioClock::shared(T0);
    let (parts, outbox) = parts(&clock);
    let mut meter = MeterSettings::clone(&meters(METER).remove(0));
    meter.over_datagrams = true;
    enter(&parts, &meter);
    let body = MeterBody::shared(&clock, "SIM0001", 2);
    let (medium, mut opened) = MemoryMedium::new("memory", false);
    let mut link = medium.open().await.unwrap();
    let (ours, theirs) = tokio::io::duplex(64 * 1024);
    tokio::spawn(lose_some(opened.recv().await.unwrap(), ours));
    tokio::spawn(serve_wrapper(theirs, 1, body.clone()));
    let deadline = Instant::now() + Duration::from_secs(1_200);
    let mut talk = Talk::new(&mut *link, &meter, 0, deadline).unwrap();
    talk.associate().await.unwrap();
    let due: Vec<usize> = (0..meter.reads.len()).collect();
    let order = Order { due: &due, yield_at: Duration::MAX, deadline };
    let mut memory = MeterMemory::new(meter.reads.len());
    visit(&parts, &meter, &mut memory, &mut talk, &order).await.unwrap();
    assert_complete(&stored(&outbox), &body);
}
