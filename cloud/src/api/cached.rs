//! Answers that cost much and may be some seconds old: computed once for all who ask.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

/// Keys remembered at a time.
const KEYS_MAX: usize = 16;

pub(super) struct Cached<K, T> {
    age_max: Duration,
    /// Held while an answer is made: whoever asks meanwhile waits for that one.
    slots: Mutex<Vec<(K, Instant, Arc<T>)>>,
}

impl<K: PartialEq, T> Cached<K, T> {
    pub(super) fn new(age_max: Duration) -> Self {
        Self { age_max, slots: Mutex::default() }
    }

    /// The remembered answer, or what `make` comes to. A failure is not remembered.
    pub(super) async fn get_or<E>(&self, key: K, make: impl Future<Output = Result<T, E>>) -> Result<Arc<T>, E> {
        let mut slots = self.slots.lock().await;
        slots.retain(|(_, made_at, _)| made_at.elapsed() < self.age_max);
        if let Some((_, _, answer)) = slots.iter().find(|(other, ..)| *other == key) {
            return Ok(Arc::clone(answer));
        }
        let answer = Arc::new(make.await?);
        if slots.len() >= KEYS_MAX {
            slots.remove(0);
        }
        slots.push((key, Instant::now(), Arc::clone(&answer)));
        Ok(answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn ask(cached: &Cached<u8, u32>, key: u8, answer: u32) -> u32 {
        *cached.get_or(key, async { Ok::<_, ()>(answer) }).await.unwrap()
    }

    #[tokio::test]
    async fn an_answer_is_made_once_until_it_is_old() {
        let cached = Cached::new(Duration::from_secs(3_600));
        assert_eq!(ask(&cached, 1, 10).await, 10);
        assert_eq!((ask(&cached, 1, 11).await, ask(&cached, 2, 20).await), (10, 20));
        assert!(cached.get_or(3, async { Err(()) }).await.is_err());
        assert_eq!(ask(&cached, 3, 30).await, 30, "a failure is not remembered");
        let short_lived = Cached::new(Duration::ZERO);
        assert_eq!((ask(&short_lived, 1, 10).await, ask(&short_lived, 1, 11).await), (10, 11));
    }

    #[tokio::test]
    async fn the_number_of_answers_is_bounded() {
        let cached = Cached::new(Duration::from_secs(3_600));
        for key in 0..100 {
            assert_eq!(ask(&cached, key, u32::from(key)).await, u32::from(key));
        }
        assert_eq!(cached.slots.lock().await.len(), KEYS_MAX);
    }
}
