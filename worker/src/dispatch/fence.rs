//! Until when this worker may speak for what it holds.
//!
//! A worker that has not called for a while counts as lost, and others get its stages. It cannot know
//! that it does, but it knows when it last could call: shortly before that time is over it stops to
//! publish and goes on working. The next exchange with the coordinator tells which stages are still
//! its own. That a late write is refused does not hang on this: the coordinator sees to it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

/// A fence that stands open for a while after each exchange.
#[derive(Debug)]
pub(crate) struct Fence {
    until: watch::Sender<Option<Instant>>,
    /// In milliseconds; as the last answer said.
    lost_after: AtomicU64,
}

impl Fence {
    /// Before the first exchange nothing is held, so there is nothing to keep back.
    pub(crate) fn new() -> Self {
        Self { until: watch::Sender::new(None), lost_after: AtomicU64::new(0) }
    }

    /// An exchange that began at `asked` was answered: the worker is lost `lost_after` later at the
    /// earliest. A fifth of that is for what is on its way when the fence closes.
    pub(crate) fn renew(&self, asked: Instant, lost_after: Duration) {
        let millis = u64::try_from(lost_after.as_millis()).unwrap_or(u64::MAX);
        self.lost_after.store(millis, Ordering::Relaxed);
        let until = asked + lost_after - lost_after / 5;
        self.until.send_modify(|last| *last = (*last).max(Some(until)));
    }

    /// How long the worker may be silent; nothing before the first exchange, whose answer must not be
    /// held back.
    pub(crate) fn lost_after(&self) -> Duration {
        Duration::from_millis(self.lost_after.load(Ordering::Relaxed))
    }

    /// Waits until something may be published.
    pub(crate) async fn open(&self) {
        let is_open = |until: &Option<Instant>| until.is_none_or(|until| Instant::now() < until);
        // The sender lives as long as this.
        let _ = self.until.subscribe().wait_for(is_open).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether the fence is open now.
    async fn is_open(fence: &Fence) -> bool {
        tokio::time::timeout(Duration::ZERO, fence.open()).await.is_ok()
    }

    #[tokio::test]
    async fn a_worker_stops_publishing_shortly_before_it_counts_as_lost() {
        let lost_after = Duration::from_secs(15);
        let ago = |secs| Instant::now().checked_sub(Duration::from_secs(secs)).unwrap();
        let fence = Fence::new();
        assert!(is_open(&fence).await);
        fence.renew(ago(13), lost_after);
        assert!(!is_open(&fence).await);
        let waiting = fence.open();
        fence.renew(ago(11), lost_after);
        waiting.await;
        // An answer to a call that began before the last one shortens nothing.
        fence.renew(ago(14), lost_after);
        assert!(is_open(&fence).await);
    }
}
