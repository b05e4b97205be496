//! Workers that wait.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use api::worker::v1::Assignment;
use common::{SessionId, StageId, WorkerId};
use store::AskingRow;
use tokio::sync::{Notify, RwLock, RwLockWriteGuard, oneshot};

/// What a worker is told that waited.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Rung {
    /// It has these stages now.
    Has(Vec<Assignment>),
    /// Something has happened to it: the next exchange shows what.
    News,
}

/// A worker that waits, and what there is to know about it.
#[derive(Debug)]
pub(crate) struct Seat {
    pub(crate) worker: WorkerId,
    pub(crate) session: SessionId,
    /// What it offers, if it has a free slot.
    pub(crate) free: Option<(u32, AskingRow)>,
    /// Slices that it waits for, by stage and digest of the selector.
    pub(crate) wishes: Vec<(StageId, String)>,
}

#[derive(Debug)]
struct Taken {
    seat: Arc<Seat>,
    bell: oneshot::Sender<Rung>,
}

/// All workers that wait at this coordinator.
#[derive(Debug, Default)]
pub(crate) struct Seats {
    taken: Mutex<HashMap<WorkerId, Taken>>,
    /// Held by a round from its look at the seats to its last ring.
    round: RwLock<()>,
    /// Somebody has sat down.
    news: Notify,
}

impl Seats {
    fn taken(&self) -> MutexGuard<'_, HashMap<WorkerId, Taken>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A worker calls that may still have a seat, from a call that was given up: what a round is about
    /// to give to that is in the database before this returns, and nothing follows.
    pub(crate) async fn leave(&self, worker: WorkerId) {
        if self.taken().contains_key(&worker) {
            let _between = self.round.read().await;
            self.taken().remove(&worker);
        }
    }

    /// Takes a seat. The bell rings once; without ringing it ends when the worker calls again.
    pub(crate) fn take(&self, seat: Seat) -> oneshot::Receiver<Rung> {
        let (bell, rings) = oneshot::channel();
        let is_free = seat.free.is_some();
        self.taken().insert(seat.worker, Taken { seat: Arc::new(seat), bell });
        if is_free {
            self.news.notify_one();
        }
        rings
    }

    /// Waits for somebody who sits down with a free slot.
    pub(crate) async fn arrivals(&self) {
        self.news.notified().await;
    }

    /// Begins a round: all that wait, and what keeps them from leaving meanwhile.
    pub(crate) async fn begin_round(&self) -> (RwLockWriteGuard<'_, ()>, Vec<Arc<Seat>>) {
        let guard = self.round.write().await;
        let mut taken = self.taken();
        taken.retain(|_, taken| !taken.bell.is_closed());
        let seats = taken.values().map(|taken| Arc::clone(&taken.seat)).collect();
        drop(taken);
        (guard, seats)
    }

    /// Tells a worker, if it still waits.
    pub(crate) fn ring(&self, worker: WorkerId, rung: Rung) {
        if let Some(taken) = self.taken().remove(&worker) {
            // Whoever has gone finds it with the next call.
            let _ = taken.bell.send(rung);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seat(worker: WorkerId) -> Seat {
        let session = SessionId(uuid::Uuid::new_v4());
        Seat { worker, session, free: None, wishes: Vec::new() }
    }

    #[tokio::test]
    async fn who_calls_again_waits_for_the_round_that_has_its_old_seat() {
        let seats = Seats::default();
        let worker = WorkerId(uuid::Uuid::new_v4());
        let rings = seats.take(seat(worker));
        let (round, found) = seats.begin_round().await;
        assert_eq!(found.len(), 1);
        let mut leaving = Box::pin(seats.leave(worker));
        assert!(futures_util::poll!(&mut leaving).is_pending());
        seats.ring(worker, Rung::News);
        drop(round);
        leaving.await;
        assert_eq!(rings.await, Ok(Rung::News));
        // Whoever has no seat waits for nobody.
        let round = seats.begin_round().await;
        seats.leave(worker).await;
        assert!(round.1.is_empty());
    }

    #[tokio::test]
    async fn a_seat_that_was_given_up_is_empty() {
        let seats = Seats::default();
        drop(seats.take(seat(WorkerId(uuid::Uuid::new_v4()))));
        assert!(seats.begin_round().await.1.is_empty());
    }
}
