//! One round.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use api::worker::v1::Assignment;
use common::{StageId, WorkerId};
use logbus::Message;
use rand::seq::SliceRandom as _;
use store::{AskingRow, Claim, Given, OfferRow, ReadyRow};

use super::seats::{Rung, Seat};
use crate::app::{App, needs, offer};
use crate::scheduler::{Asking, Left, Ready, Shares, choose};

/// Workers that are many.
const MANY: usize = 16;

/// Workers with free slots and one offer.
type Pool<'a> = Vec<(&'a Seat, u32, &'a AskingRow)>;

/// Gives away what is ready and tells whoever something has happened to; returns after what time
/// another look may come to something else.
pub(super) async fn round(app: &App) -> store::Result<Duration> {
    let (_guard, seats) = app.seats.begin_round().await;
    if seats.is_empty() {
        return Ok(Duration::MAX);
    }
    let mut pools: BTreeMap<&OfferRow, Pool<'_>> = BTreeMap::new();
    for seat in &seats {
        if let Some((slots, row)) = seat.free.as_ref().filter(|(_, row)| !row.is_quarantined) {
            pools.entry(&row.offer).or_default().push((seat, *slots, row));
        }
    }
    let serving = async {
        let mut pause = Duration::MAX;
        for (offer, pool) in pools {
            pause = pause.min(serve(app, offer, pool).await?);
        }
        Ok(pause)
    };
    let ((), pause) = tokio::try_join!(tell(app, &seats), serving)?;
    Ok(pause)
}

/// Rings where an exchange would say more than it did.
async fn tell(app: &App, seats: &[Arc<Seat>]) -> store::Result<()> {
    for worker in app.store.workers_to_drop().await? {
        app.seats.ring(worker, Rung::News);
    }
    let wishes: Vec<_> = seats.iter().flat_map(|seat| seat.wishes.iter().cloned()).collect();
    if wishes.is_empty() {
        return Ok(());
    }
    let there = app.store.slices_there(&wishes).await?;
    for seat in seats.iter().filter(|seat| seat.wishes.iter().any(|wish| there.contains(wish))) {
        app.seats.ring(seat.worker, Rung::News);
    }
    Ok(())
}

/// What is ready for one kind of worker, and who has what of it.
struct Found {
    ready: Vec<ReadyRow>,
    holders: BTreeSet<(String, WorkerId)>,
    shares: Shares,
    /// Idle workers elsewhere.
    others: u32,
}

async fn serve(app: &App, offer: &OfferRow, pool: Pool<'_>) -> store::Result<Duration> {
    let workers: Vec<WorkerId> = pool.iter().map(|(seat, ..)| seat.worker).collect();
    let slots = pool.iter().map(|(_, slots, _)| *slots).sum();
    let ready = app.store.ready_stages(offer, &workers, slots).await?;
    if ready.is_empty() {
        return Ok(Duration::MAX);
    }
    let chains: BTreeSet<String> = ready.iter().filter_map(|row| row.base_chain.clone()).collect();
    let chains: Vec<String> = chains.into_iter().collect();
    let is_shared = ready.iter().any(|row| row.project != ready[0].project);
    let (holders, running, others) = tokio::try_join!(
        async {
            if chains.is_empty() {
                return Ok(Vec::new());
            }
            app.store.chain_holders(&chains, &workers).await
        },
        async {
            // One project alone has all turns.
            if is_shared { app.store.running_by_project().await } else { Ok(Vec::new()) }
        },
        async {
            // Many here are idle: a few more elsewhere make no difference.
            if workers.len() > MANY { Ok(0) } else { app.store.other_idle_workers(&workers).await }
        },
    )?;
    let holders = holders.into_iter().collect();
    let weights = app.weights.borrow().clone();
    let running = running.into_iter().collect();
    let found = Found { ready, holders, shares: Shares { running, weights }, others };
    let (claims, pause) = distribute(found.ready.as_slice(), &found, in_order(pool, &found));
    let given = app.store.claim_stages(&claims).await?;
    let lost = claims.len() - given.len();
    app.metrics.claims_total.with_label_values(&["won"]).inc_by(given.len() as u64);
    app.metrics.claims_total.with_label_values(&["lost"]).inc_by(lost as u64);
    let ready: HashMap<StageId, &ReadyRow> = found.ready.iter().map(|row| (row.id, row)).collect();
    let mut builds = BTreeSet::new();
    for one in &given {
        if let Some(row) = ready.get(&one.lease.stage) {
            #[expect(clippy::cast_precision_loss, reason = "a histogram")]
            app.metrics.dispatch_seconds.observe(row.waiting_millis as f64 / 1000.0);
            builds.insert(row.build);
        }
    }
    for build in builds {
        app.bus.send(Message::Build(build));
    }
    hand_out(app, given).await;
    // Whoever lost a race for a stage looks again: another one may be left.
    Ok(if lost > 0 { Duration::ZERO } else { pause })
}

/// Rings for whoever got something, with all that it has to know of it.
async fn hand_out(app: &App, given: Vec<Given>) {
    let mut rungs: HashMap<WorkerId, Vec<Assignment>> = HashMap::new();
    let mut holders = HashMap::new();
    let mut jobs = Vec::new();
    for Given { worker, lease, job } in given {
        rungs.entry(worker).or_default();
        holders.insert(lease, worker);
        jobs.extend(job.map(|job| (lease, job)));
    }
    let made = app.assignments_of(jobs).await.unwrap_or_else(|error| {
        tracing::warn!(%error, "what was given away could not be read: the workers ask for it");
        Vec::new()
    });
    for assignment in made {
        if let Some(worker) = holders.get(&assignment.lease) {
            rungs.entry(*worker).or_default().push(assignment);
        }
    }
    for (worker, assignments) in rungs {
        let rung = if assignments.is_empty() { Rung::News } else { Rung::Has(assignments) };
        app.seats.ring(worker, rung);
    }
}

/// Workers that have what something starts from come first, the others in any order.
fn in_order<'a>(mut pool: Pool<'a>, found: &Found) -> Pool<'a> {
    pool.shuffle(&mut rand::rng());
    let near: HashSet<WorkerId> = found
        .holders
        .iter()
        .map(|(_, worker)| *worker)
        .chain(found.ready.iter().flat_map(|row| row.home.into_iter().chain(row.only)))
        .collect();
    if near.is_empty() {
        return pool;
    }
    let (mut first, others): (Pool<'a>, Pool<'a>) =
        pool.into_iter().partition(|(seat, ..)| near.contains(&seat.worker));
    first.extend(others);
    first
}

/// Lets one worker after the other choose from what is left. Returns what they chose, and the
/// shortest time that a stage waits for somebody better.
fn distribute(ready: &[ReadyRow], found: &Found, pool: Pool<'_>) -> (Vec<Claim>, Duration) {
    let (mut claims, mut pause) = (Vec::new(), Duration::MAX);
    let mut left: Vec<(&ReadyRow, Ready)> = ready.iter().map(|row| (row, fact(row))).collect();
    let mut shares =
        Shares { running: found.shares.running.clone(), weights: found.shares.weights.clone() };
    let count = u32::try_from(pool.len()).unwrap_or(u32::MAX);
    for (place, (seat, free_slots, row)) in (1..).zip(pool) {
        if left.is_empty() {
            break;
        }
        let worker = seat.worker;
        for (row, fact) in &mut left {
            see_from(fact, row, worker, found);
        }
        let candidates = left
            .iter()
            .filter(|(row, _)| row.only.is_none_or(|only| only == worker))
            .map(|(_, fact)| fact);
        let asking = Asking {
            offer: offer(row.offer.clone()),
            used_cpu_millis: row.used_cpu_millis,
            used_memory_bytes: row.used_memory_bytes,
            free_slots,
            other_idle: found.others.saturating_add(count - place),
            is_quarantined: row.is_quarantined,
        };
        let choice = choose(candidates, &asking, &shares);
        for (stage, why) in &choice.left {
            tracing::trace!(stage.id = %stage, worker.id = %worker, ?why, "left alone");
            if let Left::Home(rest) = why {
                pause = pause.min(*rest);
            }
        }
        left.retain(|(row, _)| {
            let is_taken = choice.take.contains(&row.id);
            if is_taken {
                *shares.running.entry(row.project.clone()).or_default() += 1;
            }
            !is_taken
        });
        let claim = |stage| Claim { stage, worker, session: seat.session };
        claims.extend(choice.take.into_iter().map(claim));
    }
    (claims, pause)
}

/// A stage as it looks from nowhere.
fn fact(row: &ReadyRow) -> Ready {
    Ready {
        id: row.id,
        project: row.project.clone(),
        needs: needs(row.needs.clone()),
        priority: row.priority,
        critical_millis: row.critical_millis,
        waiting_millis: row.waiting_millis,
        here_bytes: 0,
        elsewhere_bytes: 0,
        failed_here: false,
    }
}

/// What of it is another matter for each worker. A base without bytes is everywhere.
fn see_from(fact: &mut Ready, row: &ReadyRow, worker: WorkerId, found: &Found) {
    let has = |is_there: bool| if is_there { row.base_bytes } else { 0 };
    let holds = || {
        let chain = row.base_chain.as_ref();
        !found.holders.is_empty()
            && chain.is_some_and(|chain| found.holders.contains(&(chain.clone(), worker)))
    };
    fact.here_bytes = has(row.home == Some(worker) || holds());
    fact.elsewhere_bytes = has(row.near.iter().any(|near| *near != worker));
    fact.failed_here = row.failed.contains(&worker);
}
