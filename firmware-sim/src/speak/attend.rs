//! One reader after the other at a line: who comes while another is there takes over, since the other may have died without a word.

use std::io;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;
use tracing::{debug, warn};

use super::line::{Duplex, Listener};

const ACCEPT_AGAIN: Duration = Duration::from_millis(200);

/// Why a reader's connection ended.
pub(super) enum Ended {
    /// The reader left, or has to.
    Left,
    TakenOver(Box<dyn Duplex>),
}

/// Meters that share a line.
pub(super) trait Attended {
    fn listener(&mut self) -> &mut Listener;
    /// With the `nth` reader, until it leaves or another comes.
    fn converse(&mut self, nth: u64, stream: Box<dyn Duplex>) -> impl Future<Output = io::Result<Ended>> + Send;
}

/// Answers readers until told to stop.
pub(super) async fn attend(mut attended: impl Attended, mut stopping: watch::Receiver<bool>) {
    tokio::select! {
        biased;
        () = serve(&mut attended) => {}
        // An error means that whoever could stop us is gone: the same as being stopped.
        _ = stopping.wait_for(|stop| *stop) => {}
    }
}

async fn serve(attended: &mut impl Attended) {
    let mut next = None;
    for nth in 0.. {
        let stream = next_reader(next.take(), attended.listener()).await;
        match attended.converse(nth, stream).await {
            Ok(Ended::Left) => {}
            Ok(Ended::TakenOver(stream)) => next = Some(stream),
            Err(error) => debug!(%error, "a reader's line broke"),
        }
    }
}

/// The reader that took over, or the next that comes.
pub(super) async fn next_reader(taken_over: Option<Box<dyn Duplex>>, listener: &mut Listener) -> Box<dyn Duplex> {
    if let Some(stream) = taken_over {
        return stream;
    }
    loop {
        match listener.accept().await {
            Ok(stream) => return stream,
            Err(error) => warn!(%error, "a reader could not be accepted"),
        }
        sleep(ACCEPT_AGAIN).await;
    }
}
