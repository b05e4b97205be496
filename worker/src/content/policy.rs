//! What has to go: pure.
//!
//! Two limits: what the store keeps stays below a cap, and the file system keeps some space free.
//! Cache mounts that nobody used for long go first, since no build may ever come back to them; then
//! whatever was not used for the longest time. What is in use stays.
//!
//! A cache mount that holds more than one may goes at once, and as a whole: what in it is worth
//! keeping only the program knows that fills it.

use super::entry::{Entry, Kind};

/// One entry, as far as the choice needs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Candidate {
    pub(crate) entry: Entry,
    pub(crate) bytes: u64,
    /// When it was last used, in milliseconds since 1970.
    pub(crate) used: u64,
    pub(crate) is_pinned: bool,
}

/// The space there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Space {
    pub(crate) free_bytes: u64,
    pub(crate) total_bytes: u64,
    /// Both are 0 where a file system does not count them.
    pub(crate) free_inodes: u64,
    pub(crate) total_inodes: u64,
}

impl Space {
    /// Whether the next files may find no inode.
    pub(crate) const fn lacks_inodes(&self) -> bool {
        self.total_inodes > 0 && self.free_inodes < self.total_inodes / 50
    }
}

/// What the store may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Most bytes of all entries.
    pub(crate) max_bytes: u64,
    /// Bytes that stay free on the file system.
    pub(crate) min_free_bytes: u64,
    /// A cache mount that was not used for so long goes first.
    pub(crate) cache_age_millis: u64,
    /// Most bytes of one cache mount.
    pub(crate) cache_max_bytes: u64,
}

/// What the operator says of the limits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) max_bytes: Option<u64>,
    pub(crate) min_free_bytes: Option<u64>,
    pub(crate) cache_age_secs: u64,
    pub(crate) cache_max_bytes: Option<u64>,
}

/// The most that stays free where nobody says how much: a tenth of a big disk is a lot.
const MOST_FREE_BYTES: u64 = 20 << 30;

impl Limits {
    /// Without other wishes three quarters of the disk are for the store, and a tenth stays free.
    pub(crate) fn of(wanted: Wanted, space: Space) -> Self {
        let free = (space.total_bytes / 10).min(MOST_FREE_BYTES);
        Self {
            max_bytes: wanted.max_bytes.unwrap_or(space.total_bytes / 4 * 3),
            cache_max_bytes: wanted.cache_max_bytes.unwrap_or(u64::MAX),
            min_free_bytes: wanted.min_free_bytes.unwrap_or(free),
            cache_age_millis: wanted.cache_age_secs.saturating_mul(1000),
        }
    }

    /// Whether there is so little room that no stage is to be begun: far less than what is to stay
    /// free, which other users of the disk may have taken too.
    pub(crate) fn forbid_work(&self, space: Space) -> bool {
        space.free_bytes < self.min_free_bytes / 4
            || (space.total_inodes > 0 && space.free_inodes < space.total_inodes / 200)
    }
}

/// The entries that have to go, in this order.
pub(crate) fn choose(
    candidates: &[Candidate],
    space: Space,
    limits: Limits,
    now: u64,
) -> Vec<Entry> {
    let total: u64 = candidates.iter().map(|candidate| candidate.bytes).sum();
    let over = total.saturating_sub(limits.max_bytes);
    let short = limits.min_free_bytes.saturating_sub(space.free_bytes);
    let mut loose: Vec<&Candidate> =
        candidates.iter().filter(|candidate| !candidate.is_pinned).collect();
    loose.sort_unstable_by_key(|candidate| {
        let stays = (!is_overgrown(candidate, limits), !is_stale(candidate, limits, now));
        (stays, candidate.used, candidate.entry)
    });
    // How many inodes an entry frees is not known: a tenth of them goes, then one looks again.
    let at_least = if space.lacks_inodes() { loose.len().div_ceil(10) } else { 0 };
    let mut missing = over.max(short);
    let mut chosen = Vec::new();
    for candidate in loose {
        if missing == 0 && chosen.len() >= at_least && !is_overgrown(candidate, limits) {
            break;
        }
        missing = missing.saturating_sub(candidate.bytes);
        chosen.push(candidate.entry);
    }
    chosen
}

fn is_overgrown(candidate: &Candidate, limits: Limits) -> bool {
    candidate.entry.kind == Kind::Cache && candidate.bytes > limits.cache_max_bytes
}

fn is_stale(candidate: &Candidate, limits: Limits, now: u64) -> bool {
    candidate.entry.kind == Kind::Cache
        && now.saturating_sub(candidate.used) > limits.cache_age_millis
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::Digest;
    use proptest::prelude::*;

    const ROOMY: Space =
        Space { free_bytes: 1 << 40, total_bytes: 1 << 41, free_inodes: 0, total_inodes: 0 };

    fn limits(max_bytes: u64, min_free_bytes: u64) -> Limits {
        Limits { max_bytes, min_free_bytes, cache_age_millis: 100, cache_max_bytes: u64::MAX }
    }

    fn candidate(number: u32, is_cache: bool, bytes: u64, used: u64, pinned: bool) -> Candidate {
        let digest = Digest::of(&number.to_le_bytes());
        let kind = if is_cache { Kind::Cache } else { Kind::Layer };
        Candidate { entry: Entry { kind, digest, number: 0 }, bytes, used, is_pinned: pinned }
    }

    fn candidates() -> impl Strategy<Value = Vec<Candidate>> {
        let one = (any::<bool>(), 0..1000_u64, 0..1000_u64, any::<bool>());
        proptest::collection::vec(one, 0..40).prop_map(|all| {
            let numbered = (0..).zip(all);
            numbered
                .map(|(n, (cache, bytes, used, pin))| candidate(n, cache, bytes, used, pin))
                .collect()
        })
    }

    proptest! {
        #[test]
        fn nothing_pinned_goes_and_the_limits_hold_if_they_can(
            all in candidates(), cap in 0..20_000_u64, floor in 0..20_000_u64, free in 0..20_000_u64,
        ) {
            let space = Space { free_bytes: free, ..ROOMY };
            let gone = choose(&all, space, limits(cap, floor), 1000);
            let find = |entry: &Entry| all.iter().find(|one| one.entry == *entry).unwrap();
            prop_assert!(gone.iter().all(|entry| !find(entry).is_pinned));
            let freed: u64 = gone.iter().map(|entry| find(entry).bytes).sum();
            let total: u64 = all.iter().map(|one| one.bytes).sum();
            let holds = |freed: u64| total - freed <= cap && free + freed >= floor;
            let loose = all.iter().filter(|one| !one.is_pinned).count();
            prop_assert!(holds(freed) || gone.len() == loose);
            // No more than needed: without the last one a limit is missed.
            if let Some(last) = gone.last() {
                prop_assert!(!holds(freed - find(last).bytes));
            }
        }

        #[test]
        fn what_was_used_later_stays_longer(all in candidates(), cap in 0..20_000_u64) {
            let limits = limits(cap, 0);
            let gone = choose(&all, ROOMY, limits, 1000);
            let rank = |one: &Candidate| (!is_stale(one, limits, 1000), one.used);
            let is_gone = |one: &&Candidate| gone.contains(&one.entry);
            let newest_gone = all.iter().filter(is_gone).map(rank).max();
            let oldest_kept =
                all.iter().filter(|one| !is_gone(one) && !one.is_pinned).map(rank).min();
            if let (Some(gone), Some(kept)) = (newest_gone, oldest_kept) {
                prop_assert!(gone <= kept);
            }
        }
    }

    #[test]
    fn a_stale_cache_goes_before_an_older_layer_and_a_fresh_one_does_not() {
        let layer = candidate(1, false, 10, 5, false);
        let stale = candidate(2, true, 10, 899, false);
        let fresh = candidate(3, true, 10, 900, false);
        let all = [layer, fresh, stale];
        let gone = choose(&all, ROOMY, limits(0, 0), 1000);
        assert_eq!(gone, [stale.entry, layer.entry, fresh.entry]);
    }

    #[test]
    fn a_cache_beyond_its_own_limit_goes_even_where_there_is_room() {
        let layer = candidate(1, false, 1000, 5, false);
        let [within, beyond] = [10, 11].map(|bytes| candidate(bytes, true, bytes.into(), 6, false));
        let in_use = candidate(4, true, 1000, 7, true);
        let roomy = Limits { cache_max_bytes: 10, ..limits(u64::MAX, 0) };
        let all = [layer, within, beyond, in_use];
        assert_eq!(choose(&all, ROOMY, roomy, 1000), [beyond.entry]);
        let tight = Limits { max_bytes: 2000, ..roomy };
        assert_eq!(choose(&all, ROOMY, tight, 1000), [beyond.entry, within.entry]);
    }

    #[test]
    fn a_lack_of_inodes_takes_a_tenth() {
        let all: Vec<Candidate> =
            (0..25).map(|number| candidate(number, false, 0, u64::from(number), false)).collect();
        let space = Space { free_inodes: 1, total_inodes: 100, ..ROOMY };
        let gone = choose(&all, space, limits(u64::MAX, 0), 1000);
        assert_eq!(gone, [all[0].entry, all[1].entry, all[2].entry]);
    }
}
