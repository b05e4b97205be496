//! Processor time of the programs of a farm.

use std::collections::HashMap;
use std::path::Path;

/// Ticks of a second in `/proc/*/stat`: proc(5), `sysconf(_SC_CLK_TCK)`, 100 on Linux.
const TICKS: f64 = 100.0;

/// A line of `/proc/*/stat`.
struct Process {
    name: String,
    parent: u32,
    seconds: f64,
}

/// Seconds that the processes below this one with these names (the first 15 characters of them) have
/// worked, those that have ended left out.
pub(super) fn seconds(names: &[&str]) -> std::io::Result<f64> {
    let mut all = HashMap::new();
    for entry in std::fs::read_dir("/proc")?.flatten() {
        let id = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok());
        let Some(id) = id else {
            continue;
        };
        // One that ends meanwhile is left out.
        if let Some(process) = read(&entry.path().join("stat")) {
            all.insert(id, process);
        }
    }
    let is_ours = |process: &Process| {
        let mut parent = process.parent;
        while parent > 1 && parent != std::process::id() {
            parent = all.get(&parent).map_or(0, |process| process.parent);
        }
        parent == std::process::id()
    };
    let ours = all.values().filter(|process| names.contains(&process.name.as_str()));
    Ok(ours.filter(|process| is_ours(process)).map(|process| process.seconds).sum())
}

fn read(path: &Path) -> Option<Process> {
    let text = std::fs::read_to_string(path).ok()?;
    // The name may hold anything, parentheses too.
    let (head, rest) = text.rsplit_once(')')?;
    let (_, name) = head.split_once('(')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let number = |field: usize| fields.get(field)?.parse::<u32>().ok();
    Some(Process {
        name: name.to_owned(),
        parent: number(1)?,
        seconds: (f64::from(number(11)?) + f64::from(number(12)?)) / TICKS,
    })
}
