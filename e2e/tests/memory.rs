//! The memory of a worker does not depend on the size of what it packs, sends, fetches and unpacks.
#![expect(clippy::unwrap_used, reason = "a wrong assumption of a test fails the test")]

use e2e::{Farm, FarmOptions};

/// Bytes of the layer: some that do not compress, and more that do.
const RANDOM: u64 = 100 << 20;
const REGULAR: u64 = 400 << 20;
const FILES: u32 = 20_000;
/// Most that a worker may have had in memory at any time, and what compressing adds for each processor.
const MOST_KIB: u64 = 200 << 10;
const EACH_PROCESSOR_KIB: u64 = 16 << 10;

fn build(farm: &Farm, dockerfile: &str, name: &str) {
    let context = tempfile::tempdir_in(farm.directory()).unwrap();
    std::fs::write(context.path().join("Dockerfile"), dockerfile).unwrap();
    let path = context.path().to_str().unwrap();
    let ran = farm.slipway(["build", "--progress", "plain", "--push", "-t", name, path]).unwrap();
    assert_eq!(ran.code, 0, "{}", ran.stderr);
}

/// The most memory that the process of the worker ever had, in KiB.
fn peak_kib(farm: &Farm) -> u64 {
    let process = farm.worker_process("worker-1").unwrap();
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
fn a_layer_of_any_size_takes_no_more_memory_than_a_small_one() {
    let mut farm = Farm::start(FarmOptions { workers: 1, ..FarmOptions::default() }).unwrap();
    let name = format!("{}/memory/big:1", farm.registry());
    let processors = std::thread::available_parallelism().unwrap().get() as u64;
    let most = MOST_KIB + processors * EACH_PROCESSOR_KIB;
    let make = format!(
        "FROM alpine\nRUN head -c {RANDOM} /dev/urandom > /random && yes | head -c {REGULAR} > /regular && \
         mkdir /many && cd /many && for i in $(seq {FILES}); do echo $i > $i; done\n"
    );
    build(&farm, &make, &name);
    let packing = peak_kib(&farm);
    assert!(packing < most, "{packing} KiB to pack and to send");
    // The same from the other side, in a process of its own.
    farm.renew_worker("worker-1").unwrap();
    let read = format!(
        "FROM {name}\nRUN test $(wc -c < /random) = {RANDOM} && test $(wc -c < /regular) = {REGULAR} && \
         test $(ls /many | wc -l) = {FILES} && cp /random /copy\n"
    );
    build(&farm, &read, &format!("{}/memory/copied:1", farm.registry()));
    let unpacking = peak_kib(&farm);
    assert!(unpacking < most, "{unpacking} KiB to fetch and to unpack");
    assert_eq!(farm.stop_and_list_leftovers().unwrap(), Vec::<String>::new());
}
