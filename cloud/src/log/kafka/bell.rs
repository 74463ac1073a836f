//! How the thread of a consumer waits: for a bell, not in librdkafka.
//!
//! librdkafka's own waiting looks at the clock all the time in the last millisecond of any.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, ConsumerContext};
use rdkafka::error::KafkaResult;
use rdkafka::message::BorrowedMessage;

/// The longest wait. The bell rings when the queue is no longer empty, not for each event: one that was left in it waits so long.
const WAIT_MAX: Duration = Duration::from_millis(100);

/// Rings for one who waits; once, however often it is rung before that one looks.
#[derive(Clone)]
pub(super) struct Bell(SyncSender<()>);

impl Bell {
    pub(super) fn ring(&self) {
        // It has rung already, or nobody waits any more.
        self.0.try_send(()).ok();
    }
}

/// Who waits for the bell.
pub(super) struct Rung(Receiver<()>);

/// A bell that also rings when something has come for the consumer.
pub(super) fn hang<C: ConsumerContext>(consumer: &mut BaseConsumer<C>) -> (Bell, Rung) {
    let (ring, rung) = sync_channel(1);
    let bell = Bell(ring);
    let arrived = bell.clone();
    consumer.set_nonempty_callback(move || arrived.ring());
    (bell, Rung(rung))
}

impl Rung {
    /// What has come, waiting for the bell when that is nothing.
    pub(super) fn poll<'a, C: ConsumerContext>(
        &self,
        consumer: &'a BaseConsumer<C>,
    ) -> Option<KafkaResult<BorrowedMessage<'a>>> {
        let arrived = consumer.poll(Duration::ZERO);
        if arrived.is_none() {
            // Rung or not, the caller looks again.
            self.0.recv_timeout(WAIT_MAX).ok();
        }
        arrived
    }
}
