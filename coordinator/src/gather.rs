//! Work that is done once for all who ask at about the same time.
//!
//! Whoever asks first starts at once; what is asked meanwhile is done together when that has ended. One
//! who asks alone waits for nobody, and many share the cost of a transaction.

use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

/// Most that is done together.
const MOST: usize = 256;

/// What is asked, and where the answer goes.
pub(crate) type Asked<T, R> = (T, oneshot::Sender<R>);

/// A place where work is gathered.
#[derive(Debug)]
pub(crate) struct Gather<T, R>(Arc<Mutex<Waiting<T, R>>>);

#[derive(Debug)]
struct Waiting<T, R> {
    queue: Vec<Asked<T, R>>,
    is_running: bool,
}

impl<T, R> Default for Gather<T, R> {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Waiting { queue: Vec::new(), is_running: false })))
    }
}

impl<T: Send + 'static, R: Send + 'static> Gather<T, R> {
    /// Has something done by `work`, which answers each that it is given. None: it did not answer.
    ///
    /// The work goes on when the caller does not wait any more.
    pub(crate) async fn ask<F>(
        &self,
        what: T,
        work: impl Fn(Vec<Asked<T, R>>) -> F + Send + 'static,
    ) -> Option<R>
    where
        F: Future<Output = ()> + Send,
    {
        let (answer, answered) = oneshot::channel();
        if let Some(turn) = self.wait((what, answer)) {
            tokio::spawn(async move {
                while let Some(asked) = turn.next() {
                    work(asked).await;
                }
            });
        }
        answered.await.ok()
    }

    /// Puts somebody into the queue; nobody works yet: it is the caller's turn.
    fn wait(&self, asked: Asked<T, R>) -> Option<Turn<T, R>> {
        let mut waiting = lock(&self.0);
        waiting.queue.push(asked);
        let is_first = !std::mem::replace(&mut waiting.is_running, true);
        is_first.then(|| Turn(Arc::clone(&self.0)))
    }
}

fn lock<T, R>(waiting: &Mutex<Waiting<T, R>>) -> MutexGuard<'_, Waiting<T, R>> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The right to work. It ends with this, also by a panic; whoever waits then is not answered.
struct Turn<T, R>(Arc<Mutex<Waiting<T, R>>>);

impl<T, R> Turn<T, R> {
    /// What is to be done next; none ends the turn.
    fn next(&self) -> Option<Vec<Asked<T, R>>> {
        let mut waiting = lock(&self.0);
        let count = waiting.queue.len().min(MOST);
        let next: Vec<_> = waiting.queue.drain(..count).collect();
        waiting.is_running = !next.is_empty();
        (!next.is_empty()).then_some(next)
    }
}

impl<T, R> Drop for Turn<T, R> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let mut waiting = lock(&self.0);
            waiting.queue.clear();
            waiting.is_running = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::Notify;

    #[tokio::test]
    async fn what_is_asked_meanwhile_is_done_together() {
        let gather = Gather::<u32, usize>::default();
        let gate = Arc::new(Notify::new());
        let work = || {
            let gate = Arc::clone(&gate);
            move |asked: Vec<Asked<u32, usize>>| {
                let gate = Arc::clone(&gate);
                async move {
                    gate.notified().await;
                    let count = asked.len();
                    for (_, answer) in asked {
                        answer.send(count).unwrap();
                    }
                }
            }
        };
        let mut first = Box::pin(gather.ask(0, work()));
        assert!(futures_util::poll!(&mut first).is_pending());
        let waiting = || lock(&gather.0).queue.len();
        while waiting() > 0 {
            tokio::task::yield_now().await;
        }
        let mut rest: Vec<_> = (1..=10).map(|n| Box::pin(gather.ask(n, work()))).collect();
        for one in &mut rest {
            assert!(futures_util::poll!(one).is_pending());
        }
        gate.notify_one();
        assert_eq!(first.await, Some(1));
        gate.notify_one();
        for one in rest {
            assert_eq!(one.await, Some(10));
        }
        // Nobody works when nobody asks; whoever comes then starts anew.
        gate.notify_one();
        assert_eq!(gather.ask(11, work()).await, Some(1));
    }

    #[tokio::test]
    async fn a_panic_ends_one_turn_alone() {
        let gather = Gather::<u32, u32>::default();
        let fails = |_: Vec<Asked<u32, u32>>| async { panic!("of this test") };
        assert_eq!(gather.ask(1, fails).await, None);
        let works = |asked: Vec<Asked<u32, u32>>| async move {
            for (what, answer) in asked {
                let _ = answer.send(what);
            }
        };
        let answer = async {
            // The turn may end a moment after its answers are gone.
            loop {
                if let Some(answer) = gather.ask(2, works).await {
                    return answer;
                }
            }
        };
        assert_eq!(answer.await, 2);
    }
}
