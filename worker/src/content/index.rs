//! The entries of a store: which there are, what is known of them, who uses them.
//!
//! Everything that gives an entry its name, or takes it away, happens here under one lock, so that
//! what is pinned cannot go, and what goes cannot be pinned. Under that lock only names change;
//! bytes are written before and removed after.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use common::Digest;
use tokio::sync::Notify;

use super::entry::{Entry, Kind};
use super::journal::{Journal, Mark, Record};
use super::measure;
use super::policy::Candidate;

/// The entries of a store.
#[derive(Debug)]
pub(crate) struct Index {
    root: PathBuf,
    boot: String,
    state: Mutex<State>,
    /// Held by whoever rewrites the journal, moves the mark or evicts: one at a time.
    mark: Mutex<Safety>,
    /// Numbers for what is on its way out.
    trash: AtomicU64,
    /// Fires when there is more to keep.
    pub(super) changed: Notify,
}

#[derive(Debug)]
struct Safety {
    mark: Mark,
    /// The journal on disk says that something is there which is not: no mark may be set.
    needs_rewrite: bool,
    /// The disk has lost something in this run: nothing is said to be safe any more.
    is_broken: bool,
    /// How often the mark was set back.
    resets: u64,
}

#[derive(Debug)]
struct State {
    records: HashMap<Entry, Record>,
    pins: HashMap<Entry, u32>,
    /// Records that the journal does not have yet.
    dirty: HashSet<Entry>,
    journal: Journal,
    sequence: u64,
    /// The latest use: uses are told apart even when the clock is set back.
    used: u64,
}

/// Keeps an entry in the store until it is dropped, and makes it count as used until then.
#[derive(Debug)]
pub(crate) struct Pin {
    index: Arc<Index>,
    entry: Entry,
}

impl Pin {
    /// Where the entry is.
    pub(crate) fn path(&self) -> PathBuf {
        self.entry.place(&self.index.root)
    }

    pub(super) const fn entry(&self) -> Entry {
        self.entry
    }

    pub(super) const fn index(&self) -> &Arc<Index> {
        &self.index
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        self.index.state().unpin(self.entry);
    }
}

/// What an eviction came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Evicted {
    pub(crate) entries: u64,
    pub(crate) bytes: u64,
}

/// An entry and what is known of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Known {
    pub(super) entry: Entry,
    pub(super) record: Record,
    pub(super) pins: u32,
}

/// Now, in milliseconds since 1970.
pub(super) fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

impl Index {
    /// Finds out what is there. `boot` tells boots of the machine apart: after another one, what was
    /// not synced before is thrown into `trash`, which exists and is empty.
    pub(super) fn open(root: &Path, boot: &str) -> io::Result<Arc<Self>> {
        let mut mark = Mark::open(root)?;
        let mut known = Journal::read(root)?;
        let is_same_boot = mark.boot == boot;
        let last = known.values().map(|record| record.sequence).max().unwrap_or(0);
        let mut sequence = last.max(mark.sequence);
        let mut records = HashMap::new();
        let (entries, mut strays) = scan(root)?;
        for entry in entries {
            let record = known.remove(&entry);
            let is_safe = |record: &Record| record.sequence <= mark.sequence && !record.is_open;
            if !is_same_boot && !record.as_ref().is_some_and(is_safe) {
                strays.push(entry.place(root));
                continue;
            }
            let record = record.unwrap_or_else(|| {
                sequence += 1;
                let (bytes, tree) = (None, None);
                Record { sequence, bytes, is_measured: false, used: now(), tree, is_open: false }
            });
            records.insert(entry, Record { is_open: false, ..record });
        }
        if !strays.is_empty() {
            tracing::info!(count = strays.len(), "the store drops what a crash may have damaged");
        }
        for (number, stray) in strays.iter().enumerate() {
            fs::rename(stray, root.join(format!("trash/dropped-{number}")))?;
        }
        let journal = Journal::rewrite(root, records.iter().map(|(e, record)| (*e, *record)))?;
        if !is_same_boot {
            let safe = mark.sequence;
            mark.set(boot, safe)?;
        }
        let used = records.values().map(|record| record.used).max().unwrap_or(0);
        let (pins, dirty) = (HashMap::new(), HashSet::new());
        let state = State { records, pins, dirty, journal, sequence, used };
        let safety = Safety { mark, needs_rewrite: false, is_broken: false, resets: 0 };
        Ok(Arc::new(Self {
            root: root.to_owned(),
            boot: boot.to_owned(),
            state: Mutex::new(state),
            mark: Mutex::new(safety),
            trash: AtomicU64::new(0),
            changed: Notify::new(),
        }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn safety(&self) -> MutexGuard<'_, Safety> {
        self.mark.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Pins an entry, if it is there.
    pub(super) fn find(self: &Arc<Self>, entry: Entry) -> Option<Pin> {
        let mut state = self.state();
        state.is_there(entry, &self.root).then(|| self.pin_in(&mut state, entry))
    }

    /// Whether there is such an entry, which is no use of it.
    pub(super) fn has(&self, entry: Entry) -> bool {
        self.state().is_there(entry, &self.root)
    }

    /// Pins the name of an entry that may not be there yet.
    pub(super) fn pin(self: &Arc<Self>, entry: Entry) -> Pin {
        let mut state = self.state();
        self.pin_in(&mut state, entry)
    }

    fn pin_in(self: &Arc<Self>, state: &mut State, entry: Entry) -> Pin {
        *state.pins.entry(entry).or_default() += 1;
        state.touch(entry);
        if entry.kind == Kind::Cache {
            state.change(entry, |record| record.is_open = true);
        }
        Pin { index: Arc::clone(self), entry }
    }

    /// Gives what is complete its name. What has the name already is the same thing: then `from`
    /// stays where it is.
    pub(super) fn commit(
        self: &Arc<Self>,
        entry: Entry,
        from: &Path,
        bytes: Option<u64>,
    ) -> io::Result<Pin> {
        let mut state = self.state();
        if !state.is_there(entry, &self.root) {
            let place = entry.place(&self.root);
            if let (Kind::Cache, Some(parent)) = (entry.kind, place.parent()) {
                fs::create_dir_all(parent)?;
            }
            fs::rename(from, &place)?;
            let sequence = state.next_sequence();
            let used = state.tick();
            let (is_measured, tree, is_open) = (false, None, entry.kind == Kind::Cache);
            let record = Record { sequence, bytes, is_measured, used, tree, is_open };
            state.records.insert(entry, record);
            state.write(entry);
        }
        let pin = self.pin_in(&mut state, entry);
        drop(state);
        self.changed.notify_one();
        Ok(pin)
    }

    /// All entries.
    pub(super) fn known(&self) -> Vec<Known> {
        let state = self.state();
        let known = |(entry, record): (&Entry, &Record)| {
            let pins = state.pins.get(entry).copied().unwrap_or(0);
            Known { entry: *entry, record: *record, pins }
        };
        state.records.iter().map(known).collect()
    }

    /// All entries, to choose from.
    pub(super) fn candidates(&self) -> Vec<Candidate> {
        let candidate = |known: Known| Candidate {
            entry: known.entry,
            bytes: known.record.bytes.unwrap_or(0),
            used: known.record.used,
            is_pinned: known.pins > 0,
        };
        self.known().into_iter().map(candidate).collect()
    }

    /// Whether nothing is in use.
    pub(super) fn is_idle(&self) -> bool {
        self.state().pins.is_empty()
    }

    /// Notes what was found out of an entry, if it is still the same one.
    pub(super) fn note(&self, known: &Known, bytes: Option<u64>, tree: Option<Digest>) {
        let mut state = self.state();
        if state.records.get(&known.entry).map(|now| now.sequence) != Some(known.record.sequence) {
            return;
        }
        state.change(known.entry, |record| {
            if let Some(bytes) = bytes {
                (record.bytes, record.is_measured) = (Some(bytes), true);
            }
            record.tree = tree.or(record.tree);
        });
    }

    /// Whether an entry is still the one that was looked at.
    pub(super) fn is_same(&self, known: &Known) -> bool {
        let state = self.state();
        let found = state.records.get(&known.entry);
        found.is_some_and(|record| record.sequence == known.record.sequence)
    }

    /// Writes what changed since the last time.
    pub(super) fn flush(&self) {
        self.state().flush();
    }

    /// Takes entries out of the store, but none that is pinned, unless the caller holds the pin.
    ///
    /// That they go is on disk before they lose their names: otherwise, after a crash of the
    /// machine, another entry of the same name could pass for one that was synced.
    pub(super) fn remove(&self, entries: &[Entry], own_pin: bool) -> io::Result<Evicted> {
        // A directory that is there already: on a full disk none can be made.
        let trash = self.root.join("trash");
        let first = self.trash.fetch_add(entries.len() as u64, Ordering::Relaxed);
        let place = |number: usize| trash.join((first + number as u64).to_string());
        let evicted = self.move_out(entries, own_pin, place);
        // The bytes go when no lock is held any more.
        for number in 0..entries.len() {
            discard(&place(number))?;
        }
        evicted
    }

    /// Takes entries out of the store and keeps them at the places that `place` names.
    pub(super) fn move_out(
        &self,
        entries: &[Entry],
        own_pin: bool,
        place: impl Fn(usize) -> PathBuf,
    ) -> io::Result<Evicted> {
        let mut evicted = Evicted::default();
        if entries.is_empty() {
            return Ok(evicted);
        }
        let mut safety = self.safety();
        if let Err(error) = self.announce(entries) {
            tracing::warn!(%error, "the store's journal cannot be written");
            safety.set_back(&self.boot)?;
        }
        let mut state = self.state();
        for (number, entry) in entries.iter().enumerate() {
            let is_pinned = !own_pin && state.pins.contains_key(entry);
            let Some(record) = state.records.get(entry).copied() else { continue };
            if is_pinned {
                state.write(*entry);
                continue;
            }
            let from = entry.place(&self.root);
            match fs::rename(&from, place(number)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            state.records.remove(entry);
            state.dirty.remove(entry);
            evicted.entries += 1;
            evicted.bytes += record.bytes.unwrap_or(0);
        }
        Ok(evicted)
    }

    /// Writes down that entries go.
    fn announce(&self, entries: &[Entry]) -> io::Result<()> {
        let file = {
            let mut state = self.state();
            for entry in entries {
                state.journal.append(*entry, None)?;
            }
            state.journal.file()
        };
        file.sync_data()
    }

    /// Makes everything that has its name survive a crash of the machine. May take long: nothing is
    /// locked meanwhile.
    pub(super) fn sync(&self) -> io::Result<()> {
        let (sequence, resets) = {
            let mut safety = self.safety();
            let mut state = self.state();
            let is_done = safety.mark.sequence >= state.sequence;
            if safety.is_broken || (is_done && !safety.needs_rewrite) {
                return Ok(());
            }
            state.flush();
            if safety.needs_rewrite || state.journal.is_long(state.records.len()) {
                state.rewrite(&self.root)?;
                safety.needs_rewrite = false;
            }
            (state.sequence, safety.resets)
        };
        let synced = rustix::fs::syncfs(File::open(&self.root)?);
        let mut safety = self.safety();
        if let Err(error) = synced {
            safety.is_broken = true;
            let safe = safety.mark.sequence;
            // As if the machine had crashed, when the store is opened again.
            safety.mark.set("broken", safe)?;
            drop(safety);
            let is_suspect = |known: &Known| known.record.sequence > safe;
            let suspects = self.known().into_iter().filter(is_suspect).map(|known| known.entry);
            self.remove(&suspects.collect::<Vec<_>>(), false)?;
            return Err(error.into());
        }
        if safety.resets == resets {
            safety.mark.set(&self.boot, sequence)?;
        }
        Ok(())
    }

    /// Measures entries whose size is not known at all.
    pub(super) fn measure_unknown(&self) {
        for known in self.known().iter().filter(|known| known.record.bytes.is_none()) {
            self.measure(known);
        }
    }

    /// Measures an entry whose size is not known exactly: one that was just made, or a cache that
    /// was in use since. One that is in use is looked at each time.
    pub(super) fn measure_changed(&self, known: &Known) {
        let is_open = known.entry.kind == Kind::Cache && known.pins > 0;
        if is_open || (!known.record.is_measured && known.pins == 0) {
            self.measure(known);
        }
    }

    /// Measures an entry.
    pub(super) fn measure(&self, known: &Known) {
        let place = known.entry.place(&self.root);
        match measure::size(&place) {
            Ok(bytes) => self.note(known, Some(bytes), None),
            Err(error) => tracing::warn!(path = %place.display(), %error, "cannot measure"),
        }
    }
}

impl Safety {
    /// Takes back that anything is safe: the journal cannot say any more what is not.
    fn set_back(&mut self, boot: &str) -> io::Result<()> {
        self.resets += 1;
        self.needs_rewrite = true;
        self.mark.set(boot, 0)
    }
}

impl State {
    fn tick(&mut self) -> u64 {
        self.used = now().max(self.used + 1);
        self.used
    }

    fn next_sequence(&mut self) -> u64 {
        self.sequence += 1;
        self.sequence
    }

    /// Whether there is such an entry. One that somebody removed by hand is forgotten.
    fn is_there(&mut self, entry: Entry, root: &Path) -> bool {
        if !self.records.contains_key(&entry) {
            return false;
        }
        let is_there = entry.place(root).exists();
        if !is_there {
            self.records.remove(&entry);
            self.dirty.remove(&entry);
        }
        is_there
    }

    fn change(&mut self, entry: Entry, change: impl FnOnce(&mut Record)) {
        if let Some(record) = self.records.get_mut(&entry) {
            change(record);
            self.dirty.insert(entry);
        }
    }

    fn touch(&mut self, entry: Entry) {
        let used = self.tick();
        self.change(entry, |record| record.used = used);
    }

    fn unpin(&mut self, entry: Entry) {
        self.touch(entry);
        let Some(count) = self.pins.get_mut(&entry) else { return };
        *count -= 1;
        if *count > 0 {
            return;
        }
        self.pins.remove(&entry);
        if entry.kind == Kind::Cache {
            // It is another one than before.
            let sequence = self.next_sequence();
            self.change(entry, |record| {
                (record.sequence, record.is_open, record.is_measured) = (sequence, false, false);
            });
        }
    }

    /// Writes a record; one that could not be written is tried again later.
    fn write(&mut self, entry: Entry) {
        let Some(record) = self.records.get(&entry).copied() else { return };
        if self.journal.append(entry, Some(record)).is_ok() {
            self.dirty.remove(&entry);
        } else {
            self.dirty.insert(entry);
        }
    }

    fn flush(&mut self) {
        for entry in self.dirty.clone() {
            self.write(entry);
        }
    }

    fn rewrite(&mut self, root: &Path) -> io::Result<()> {
        let records = self.records.iter().map(|(entry, record)| (*entry, *record));
        self.journal = Journal::rewrite(root, records)?;
        self.dirty.clear();
        Ok(())
    }
}

/// Removes a file or a directory, if it is there.
pub(super) fn discard(path: &Path) -> io::Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// Everything that has a place in the store: entries, and what is none.
fn scan(root: &Path) -> io::Result<(Vec<Entry>, Vec<PathBuf>)> {
    let (mut entries, mut strays) = (Vec::new(), Vec::new());
    for kind in Kind::ALL {
        for found in fs::read_dir(root.join(kind.directory()))? {
            let place = found?.path();
            if kind == Kind::Cache && place.is_dir() {
                for copy in fs::read_dir(&place)? {
                    let data = copy?.path().join("data");
                    if data.exists() {
                        sort(root, data, kind, &mut entries, &mut strays);
                    }
                }
                continue;
            }
            sort(root, place, kind, &mut entries, &mut strays);
        }
    }
    Ok((entries, strays))
}

fn sort(
    root: &Path,
    place: PathBuf,
    kind: Kind,
    entries: &mut Vec<Entry>,
    strays: &mut Vec<PathBuf>,
) {
    let name = place.strip_prefix(root).ok().and_then(Path::to_str);
    let entry = name.and_then(|name| name.parse::<Entry>().ok());
    let is_directory = fs::symlink_metadata(&place).is_ok_and(|found| found.is_dir());
    match entry {
        Some(entry) if is_directory == matches!(kind, Kind::Layer | Kind::Cache) => {
            entries.push(entry);
        }
        _ => strays.push(place),
    }
}
