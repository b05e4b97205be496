//! Processes that use a store are killed at random points; the store is looked at after each.

use std::fs;
use std::io::Read as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use common::Digest;
use layer::Compression;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::entry::{Entry, Kind};
use super::measure::{file_digest, tree_digest};
use super::policy::Limits;
use super::{ContentStore, Pin};

/// Names the directory to the process that is to be killed.
const DIRECTORY: &str = "SLIPWAY_TEST_STORE";
/// The process makes this file when it has opened the store.
const OPENED: &str = "opened";
const SEED: &str = "SLIPWAY_TEST_SEED";
/// Layers that there are.
const LAYERS: u64 = 12;
const KILLS: u32 = 100;

/// A layer of random shape: the same for the same number.
fn make_layer(at: &Path, number: u64) {
    let mut rng = StdRng::seed_from_u64(number);
    for directory in 0..rng.random_range(1..6) {
        let place = at.join(format!("d{directory}"));
        fs::create_dir_all(&place).unwrap();
        for file in 0..rng.random_range(1..20) {
            let content = vec![rng.random::<u8>(); rng.random_range(0..30_000)];
            let path = place.join(format!("f{file}"));
            fs::write(&path, content).unwrap();
            let file = fs::File::options().write(true).open(&path).unwrap();
            file.set_modified(std::time::UNIX_EPOCH + Duration::from_secs(number)).unwrap();
        }
    }
    let whole = walkdir::WalkDir::new(at).into_iter().map(|entry| entry.unwrap());
    for entry in whole.filter(|entry| entry.file_type().is_dir()) {
        let directory = fs::File::open(entry.path()).unwrap();
        directory.set_modified(std::time::UNIX_EPOCH + Duration::from_secs(number)).unwrap();
    }
}

/// What is to be in the store: archives to unpack, and what they unpack to.
struct Archive {
    path: PathBuf,
    blob: Digest,
    diff_id: Digest,
    tree: Digest,
}

fn archives(directory: &Path) -> Vec<Archive> {
    let make = |number| {
        let path = directory.join(format!("archive-{number}"));
        let root = tempfile::tempdir_in(directory).unwrap();
        make_layer(root.path(), number);
        let packed = layer::pack_upper(root.path(), &[], &path, Compression::Gzip).unwrap();
        let unpacked = directory.join(format!("unpacked-{number}"));
        unpack(&path, &unpacked);
        let tree = tree_of(&unpacked);
        Archive { path, blob: packed.blob, diff_id: packed.diff_id, tree }
    };
    (0..LAYERS).map(make).collect()
}

fn unpack(archive: &Path, at: &Path) -> Digest {
    fs::create_dir(at).unwrap();
    let extracted = layer::extract(fs::File::open(archive).unwrap(), at).unwrap();
    // The root has no entry of its own: its time is that of the unpacking.
    let root = fs::File::open(at).unwrap();
    root.set_modified(std::time::UNIX_EPOCH).unwrap();
    extracted.diff_id
}

fn tree_of(path: &Path) -> Digest {
    tree_digest(path, &AtomicBool::new(false)).unwrap()
}

/// Uses a store, with all that a worker does, until it is killed; ends by itself only when a check
/// fails.
fn use_store(directory: &Path, seed: u64) -> ! {
    let store = Arc::new(ContentStore::open(&directory.join("store")).unwrap());
    fs::write(directory.join(OPENED), "").unwrap();
    for thread in 0..3 {
        let (store, directory) = (Arc::clone(&store), directory.to_owned());
        std::thread::spawn(move || {
            let mut rng = StdRng::seed_from_u64(seed * 10 + thread);
            let uses = std::panic::AssertUnwindSafe(|| {
                let mut held = Vec::new();
                loop {
                    held.extend(one_use(&store, &directory, &mut rng));
                    // Some are used for long, and nothing may happen to them meanwhile.
                    while held.len() > rng.random_range(0..5) {
                        let (pin, expected): (Pin, Digest) = held.remove(0);
                        let (kind, path) = (pin.entry().kind, pin.path());
                        assert_eq!(digest_of(kind, &path), expected, "what is pinned is whole");
                    }
                }
            });
            let failed: Result<(), _> = std::panic::catch_unwind(uses);
            std::process::exit(if failed.is_err() { 3 } else { 4 });
        });
    }
    loop {
        std::thread::park();
    }
}

fn digest_of(kind: Kind, path: &Path) -> Digest {
    if kind == Kind::Layer { tree_of(path) } else { file_digest(path).unwrap() }
}

/// Does one thing. Gives what is pinned for it, and the digest that this has.
fn one_use(store: &ContentStore, directory: &Path, rng: &mut StdRng) -> Option<(Pin, Digest)> {
    let number = rng.random_range(0..LAYERS);
    let archive = directory.join(format!("archive-{number}"));
    match rng.random_range(0..10) {
        0..5 => {
            let scratch = store.scratch().unwrap();
            let layer = scratch.path().join("layer");
            let diff_id = unpack(&archive, &layer);
            let expected = tree_of(&directory.join(format!("unpacked-{number}")));
            let pin = store.commit_layer(&layer, &diff_id, 100_000).unwrap();
            return Some((pin, expected));
        }
        5..7 => {
            let scratch = store.scratch().unwrap();
            let blob = scratch.path().join("blob");
            fs::copy(&archive, &blob).unwrap();
            let digest = file_digest(&blob).unwrap();
            return Some((store.commit_blob(&blob, &digest).unwrap(), digest));
        }
        7..9 => {
            let limits = Limits {
                max_bytes: rng.random_range(0..2_000_000),
                min_free_bytes: 0,
                cache_age_millis: 0,
                cache_max_bytes: u64::MAX,
            };
            store.evict(limits).unwrap();
        }
        _ => {
            store.index.flush();
            // Rarely: it writes everything that the machine has.
            if rng.random_range(0..100) == 0 {
                store.index.sync().unwrap();
            }
        }
    }
    None
}

/// Starts this very test as a process of its own and kills it a while after it has begun to open the
/// store, or to use it.
fn kill_one(directory: &Path, seed: u64, in_open: bool, after: Duration) {
    let opened = directory.join(OPENED);
    let _ = fs::remove_file(&opened);
    let has_begun =
        || if in_open { is_locked(&directory.join("store/lock")) } else { opened.exists() };
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([
            "--nocapture",
            "--exact",
            "content::crash_tests::a_store_survives_kills_at_any_point",
        ])
        .env(DIRECTORY, directory)
        .env(SEED, seed.to_string())
        // To print one takes longer than the process lives.
        .env("RUST_BACKTRACE", "0")
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let limit = std::time::Instant::now() + Duration::from_mins(1);
    while !has_begun() && child.try_wait().unwrap().is_none() {
        assert!(std::time::Instant::now() < limit, "the process did not begin");
        std::thread::sleep(Duration::from_millis(1));
    }
    std::thread::sleep(after);
    child.kill().unwrap();
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    let status = child.wait().unwrap();
    let is_killed = status.signal() == Some(9) && !said.contains("panicked");
    assert!(is_killed, "a check failed: {status} {said}");
}

fn is_locked(lock: &Path) -> bool {
    use rustix::fs::{FlockOperation, flock};
    let Ok(file) = fs::File::open(lock) else { return false };
    flock(&file, FlockOperation::NonBlockingLockShared).is_err()
}

/// Everything in the store is whole, and nothing else is there.
fn check(root: &Path, boot: &str, archives: &[Archive]) -> usize {
    let store = ContentStore::open_in_boot(root, boot).unwrap();
    for name in ["tmp", "trash", "damaged"] {
        assert_eq!(fs::read_dir(root.join(name)).unwrap().count(), 0, "{name}");
    }
    let known = store.index.known();
    for known in &known {
        let place = known.entry.place(root);
        let of = |digest: fn(&Archive) -> Digest| {
            archives.iter().find(|archive| digest(archive) == known.entry.digest).unwrap()
        };
        match known.entry.kind {
            Kind::Layer => assert_eq!(tree_of(&place), of(|archive| archive.diff_id).tree),
            _ => assert_eq!(file_digest(&place).unwrap(), of(|archive| archive.blob).blob),
        }
    }
    for kind in ["layers", "blobs"] {
        for found in fs::read_dir(root.join(kind)).unwrap() {
            let name = format!("{kind}/{}", found.unwrap().file_name().to_str().unwrap());
            let entry: Entry = name.parse().unwrap();
            assert!(known.iter().any(|known| known.entry == entry), "{name} is not known");
        }
    }
    known.len()
}

#[test]
fn a_store_survives_kills_at_any_point() {
    if let (Some(directory), Ok(seed)) = (std::env::var_os(DIRECTORY), std::env::var(SEED)) {
        use_store(Path::new(&directory), seed.parse().unwrap());
    }
    let seed: u64 = std::env::var(SEED).map_or_else(|_| rand::random(), |s| s.parse().unwrap());
    let said = format!("to see it again: {SEED}={seed}");
    let _ = std::io::Write::write_all(&mut std::io::stderr(), format!("{said}\n").as_bytes());
    let directory = tempfile::tempdir().unwrap();
    let archives = archives(directory.path());
    assert!(archives.iter().all(|archive| archive.path.exists()));
    let root = directory.path().join("store");
    fs::create_dir(&root).unwrap();
    let this_boot = super::journal::boot_id().unwrap();
    let mut rng = StdRng::seed_from_u64(seed);
    let mut most = 0;
    for kill in 0..KILLS {
        let in_open = kill % 4 == 3;
        let longest = if in_open { 50_000 } else { 250_000 };
        let after = Duration::from_micros(rng.random_range(0..longest));
        kill_one(directory.path(), rng.random_range(0..1_000_000), in_open, after);
        // Now and then the machine is taken to have crashed too: what was synced is whole as well.
        let boot = if kill % 10 == 9 { format!("boot-{kill}") } else { this_boot.clone() };
        most = most.max(check(&root, &boot, &archives));
    }
    assert!(most > 0, "nothing was ever in the store");
}
