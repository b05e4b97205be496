//! Starting and stopping: first softly, then hard.
//!
//! The first SIGTERM or SIGINT asks every task to finish what it has begun (*soft*); a second one,
//! or the end of the grace period, ends them where they are (*hard*).

use std::future::Future;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The two tokens and the tasks that listen to them. Clones share everything.
#[derive(Debug, Clone, Default)]
pub struct Lifecycle {
    soft: CancellationToken,
    hard: CancellationToken,
    tasks: TaskTracker,
}

impl Lifecycle {
    /// A running one.
    pub fn new() -> Self {
        let hard = CancellationToken::new();
        Self { soft: hard.child_token(), hard, tasks: TaskTracker::new() }
    }

    /// Fires when no new work is to be begun.
    pub fn soft(&self) -> &CancellationToken {
        &self.soft
    }

    /// Fires when everything has to end now.
    pub fn hard(&self) -> &CancellationToken {
        &self.hard
    }

    /// Asks for a soft stop.
    pub fn stop(&self) {
        self.soft.cancel();
    }

    /// Runs a task that belongs to the program: if it ends before a stop was asked for, the program
    /// stops, because a part of it is missing.
    pub fn spawn_essential(
        &self,
        name: &'static str,
        task: impl Future<Output = ()> + Send + 'static,
    ) {
        let soft = self.soft.clone();
        let guard = StopOnDrop { name, soft };
        self.tasks.spawn(async move {
            let _guard = guard;
            task.await;
        });
    }

    /// Runs a task that may end at any time.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(task);
    }

    /// Waits for the stop, then at most `grace` for the tasks, then ends them.
    pub async fn run_until_stopped(&self, grace: Duration) {
        self.soft.cancelled().await;
        self.tasks.close();
        let hard = self.hard.clone();
        tokio::select! {
            () = self.tasks.wait() => {}
            () = tokio::time::sleep(grace) => tracing::warn!("tasks did not end in time"),
            () = hard.cancelled() => {}
        }
        self.hard.cancel();
        // Tasks that listen to the hard token need a moment to see it.
        let _ = tokio::time::timeout(Duration::from_secs(2), self.tasks.wait()).await;
    }

    /// Turns signals into stops. Fails only where signals cannot be had at all.
    pub fn listen_to_signals(&self) -> std::io::Result<()> {
        use tokio::signal::unix::{SignalKind, signal};
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let (soft, hard) = (self.soft.clone(), self.hard.clone());
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
                if soft.is_cancelled() {
                    hard.cancel();
                    return;
                }
                tracing::info!("stopping; once more to stop at once");
                soft.cancel();
            }
        });
        Ok(())
    }
}

struct StopOnDrop {
    name: &'static str,
    soft: CancellationToken,
}

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        if !self.soft.is_cancelled() {
            tracing::error!(task = self.name, "a task of the program ended, stopping");
            self.soft.cancel();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panicking_task_stops_the_program() {
        let lifecycle = Lifecycle::new();
        lifecycle.spawn_essential("bad", async { panic!("on purpose") });
        lifecycle.run_until_stopped(Duration::from_secs(5)).await;
        assert!(lifecycle.hard().is_cancelled());
    }

    #[tokio::test]
    async fn a_task_that_does_not_end_is_ended_after_the_grace_period() {
        let lifecycle = Lifecycle::new();
        let hard = lifecycle.hard().clone();
        lifecycle.spawn(async move { hard.cancelled().await });
        lifecycle.stop();
        lifecycle.run_until_stopped(Duration::from_millis(10)).await;
    }
}
