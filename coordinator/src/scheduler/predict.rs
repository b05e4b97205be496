//! How long it will take from a stage to the end of its build.

/// What a stage is taken to run when nothing is known of it.
pub(crate) const DEFAULT_MILLIS: u64 = 10_000;

/// For each stage the milliseconds from its start to the end of the build, on the longest path.
///
/// `producers[n]` are those that stage n starts from or copies out of; they come before it. A
/// consumer may begin before what it copies is there: the path is then too long by what it does
/// meanwhile, alike for all.
pub(crate) fn critical_paths(millis: &[u64], producers: &[Vec<usize>]) -> Vec<u64> {
    let mut paths = millis.to_vec();
    for stage in (0..millis.len()).rev() {
        for &producer in producers[stage].iter().filter(|&&producer| producer < stage) {
            paths[producer] = paths[producer].max(millis[producer].saturating_add(paths[stage]));
        }
    }
    paths
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_path_counts() {
        // 0 → 1 → 3, 0 → 2 → 3
        let producers = [vec![], vec![0], vec![0], vec![1, 2]];
        assert_eq!(critical_paths(&[1, 10, 100, 5], &producers), [106, 15, 105, 5]);
        assert_eq!(critical_paths(&[], &[]), Vec::<u64>::new());
    }
}
