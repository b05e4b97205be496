//! RUN: what a command finds, may do, and leaves behind.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use api::public::v1::LogStream;
use common::plan::Network;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use worker::runtime::{DefaultNetwork, OutputChunk, RunError, RuntimeConfig};

use crate::sandbox::{Sandbox, every_runtime, run, run_until, write};

#[tokio::test]
async fn standard_input_is_empty_and_there_is_no_terminal() {
    for config in every_runtime() {
        let mut sandbox = Sandbox::new(&config);
        let ran = sandbox.sh("cat; for fd in 0 1 2; do test -t $fd && echo $fd; done; true").await;
        assert_eq!((ran.exit.code, ran.stdout.as_str()), (0, ""), "{ran:?}");
    }
}

#[tokio::test]
async fn capabilities_are_dockers_and_only_roots() {
    for config in every_runtime() {
        let mut sandbox = Sandbox::new(&config);
        let script = "grep -E 'Cap(Eff|Bnd|Amb)|NoNewPrivs' /proc/self/status";
        let ran = sandbox.sh(script).await;
        let expected = "CapEff:\t00000000a80425fb\nCapBnd:\t00000000a80425fb\n\
                        CapAmb:\t0000000000000000\nNoNewPrivs:\t0\n";
        assert_eq!(ran.stdout, expected);
        let ran = sandbox.sh_with(script, |request| request.op.user = "app".into()).await;
        assert!(ran.stdout.contains("CapEff:\t0000000000000000\n"), "{ran:?}");
    }
}

#[tokio::test]
async fn the_kernels_settings_and_memory_are_out_of_reach() {
    for config in every_runtime() {
        let mut sandbox = Sandbox::new(&config);
        for script in [
            "echo x > /proc/sys/kernel/core_pattern",
            "echo b > /proc/sysrq-trigger",
            "touch /sys/x",
            "echo 1 > /sys/fs/cgroup/memory/memory.limit_in_bytes",
            "mount -t tmpfs none /tmp",
            "mount -t proc none /tmp",
            "umount /proc/kcore",
            "test -s /proc/kcore",
            "test -s /proc/keys",
            "ls /sys/firmware | grep .",
            "hostname other",
        ] {
            let ran = sandbox.sh(script).await;
            assert_ne!(ran.exit.code, 0, "{script}: {ran:?}");
        }
    }
}

#[tokio::test]
async fn disks_and_memory_of_the_host_cannot_be_opened_by_new_nodes() {
    // The disk that holds the tests, and physical memory.
    let disk = fs::metadata("/tmp").unwrap().dev();
    let disk = format!("b {} {}", rustix::fs::major(disk), rustix::fs::minor(disk));
    for config in every_runtime() {
        let mut sandbox = Sandbox::new(&config);
        for device in [disk.as_str(), "c 1 1"] {
            let ran = sandbox.sh(&format!("mknod /node {device} && dd if=/node count=1")).await;
            assert_ne!(ran.exit.code, 0, "{ran:?}");
            assert!(ran.stderr.contains("not permitted"), "{ran:?}");
        }
        let script = "for name in null zero full random urandom tty; do ls /dev/$name; done && \
                      head -c 4 /dev/urandom > /dev/null && touch /dev/shm/x && test -c /dev/ptmx";
        let ran = sandbox.sh(script).await;
        assert_eq!(ran.exit.code, 0, "{ran:?}");
    }
}

#[tokio::test]
async fn only_processes_of_the_command_are_visible() {
    for config in every_runtime() {
        let mut sandbox = Sandbox::new(&config);
        let ran = sandbox.sh("echo $$; ls /proc | grep -c '^[0-9]'").await;
        let numbers: Vec<u32> = ran.stdout.lines().map(|line| line.parse().unwrap()).collect();
        assert_eq!(numbers[0], 1);
        assert!(numbers[1] <= 4, "{ran:?}");
    }
}

#[tokio::test]
async fn no_descriptor_of_the_worker_is_inherited() {
    for config in every_runtime() {
        let mut sandbox = Sandbox::new(&config);
        // 3 is the directory that `ls` itself has open.
        let ran = sandbox.sh("ls -1 /proc/self/fd").await;
        assert_eq!(ran.stdout, "0\n1\n2\n3\n", "{ran:?}");
    }
}

#[tokio::test]
async fn a_command_cannot_start_more_processes_than_its_limit() {
    for config in every_runtime() {
        let mut sandbox = Sandbox::new(&config);
        let script = "for i in $(seq 60); do sleep 100 & done; true";
        let ran = sandbox.sh_with(script, |request| request.limits.pids = Some(20)).await;
        assert!(ran.stderr.contains("can't fork"), "{ran:?}");
    }
}

#[tokio::test]
async fn the_environment_arrives_as_given_and_nothing_is_added_but_path_and_home() {
    for config in every_runtime() {
        let mut sandbox = Sandbox::new(&config);
        let step = sandbox.step();
        let mut request = sandbox.request(&step, &["/bin/env"]);
        let given = [("B", "2"), ("A", "x=y \"z\" $HOME \\ ü"), ("EMPTY", ""), ("LINES", "1\n2")];
        request.op.env = given.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        let ran = run(&sandbox.runtime, request).await.unwrap();
        let mut expected =
            "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n".to_owned();
        for (name, value) in given {
            expected.push_str(&format!("{name}={value}\n"));
        }
        expected.push_str("HOME=/root\n");
        assert_eq!(ran.stdout, expected);
    }
}

#[tokio::test]
async fn a_user_has_its_groups_and_a_missing_working_directory_becomes_its_own() {
    for config in every_runtime() {
        let mut sandbox = Sandbox::new(&config);
        let script = "id -u; id -G; stat -c '%u:%g %a' /srv /srv/app; touch made";
        let ran = sandbox
            .sh_with(script, |request| {
                request.op.user = "app".into();
                request.op.working_dir = "/srv/app".into();
            })
            .await;
        assert_eq!(ran.stdout, "7\n8 29\n7:8 755\n7:8 755\n", "{ran:?}");
        assert_eq!(ran.exit.code, 0);
    }
}

#[tokio::test]
async fn an_unknown_user_is_an_error_that_names_it() {
    let mut sandbox = Sandbox::plain();
    let step = sandbox.step();
    let mut request = sandbox.request(&step, &["/bin/true"]);
    request.op.user = "nobody-here".into();
    let error = run(&sandbox.runtime, request).await.unwrap_err();
    assert!(matches!(error, RunError::User(_)), "{error:?}");
    assert!(error.to_string().contains("nobody-here"), "{error}");
}

#[tokio::test]
async fn a_signal_of_a_child_and_a_file_that_is_no_program_have_the_shells_codes() {
    for config in every_runtime() {
        let mut sandbox = Sandbox::new(&config);
        assert_eq!(sandbox.sh("sh -c 'kill -TERM $$'; exit $?").await.exit.code, 143);
        assert_eq!(sandbox.sh("exit 255").await.exit.code, 255);
        write(sandbox.base("plain"), "no program");
        let step = sandbox.step();
        let request = sandbox.request(&step, &["/plain"]);
        let ran = run(&sandbox.runtime, request).await.unwrap();
        assert_eq!(ran.exit.code, 126, "{ran:?}");
    }
}

#[tokio::test]
async fn all_output_arrives_in_order_however_slow_its_reader_is() {
    for config in every_runtime() {
        let mut sandbox = Sandbox::new(&config);
        let step = sandbox.step();
        let request = sandbox.request(&step, &["/bin/sh", "-c", "seq 1 200000; echo end >&2"]);
        let (sender, mut receiver) = mpsc::channel::<OutputChunk>(1);
        let collect = tokio::spawn(async move {
            let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
            while let Some(chunk) = receiver.recv().await {
                match chunk.stream {
                    LogStream::Stdout => stdout.extend(chunk.bytes),
                    LogStream::Stderr | LogStream::System => stderr.extend(chunk.bytes),
                }
                tokio::task::yield_now().await;
            }
            [stdout, stderr].map(|bytes| String::from_utf8(bytes).unwrap())
        });
        let exit = sandbox.runtime.run(request, sender, CancellationToken::new()).await.unwrap();
        assert_eq!(exit.code, 0);
        let [stdout, stderr] = collect.await.unwrap();
        let numbers = stdout.lines().map(|line| line.parse::<u32>().unwrap());
        assert!(numbers.eq(1..=200_000), "{} bytes", stdout.len());
        assert_eq!(stderr, "end\n");
    }
}

#[tokio::test]
async fn what_a_command_started_in_the_background_ends_with_it() {
    for config in every_runtime() {
        let mut sandbox = Sandbox::new(&config);
        let begun = Instant::now();
        let ran = sandbox.sh("trap '' HUP TERM; (sleep 1000; echo late) & echo done").await;
        assert_eq!((ran.exit.code, ran.stdout.as_str()), (0, "done\n"), "{ran:?}");
        assert!(begun.elapsed() < Duration::from_mins(1));
    }
}

#[tokio::test]
async fn a_cancel_before_the_start_ends_the_command_too() {
    for config in every_runtime() {
        let mut sandbox = Sandbox::new(&config);
        let step = sandbox.step();
        let request = sandbox.request(&step, &["/bin/sh", "-c", "sleep 1000"]);
        let cancel = CancellationToken::new();
        cancel.cancel();
        let ran = run_until(&sandbox.runtime, request, cancel).await.unwrap();
        assert!(ran.exit.cancelled, "{ran:?}");
    }
}

#[tokio::test]
async fn commands_that_run_at_once_do_not_disturb_each_other() {
    for config in every_runtime() {
        let mut sandbox = Sandbox::new(&config);
        let mut tasks = Vec::new();
        for number in 0..8 {
            let step = sandbox.step();
            let script = format!("echo {number} > /own; hostname; cat /own; exit {number}");
            let request = sandbox.request(&step, &["/bin/sh", "-c", &script]);
            let runtime = sandbox.runtime.clone();
            tasks.push(tokio::spawn(async move { (run(&runtime, request).await, step) }));
        }
        for (number, task) in tasks.into_iter().enumerate() {
            let (ran, step) = task.await.unwrap();
            let ran = ran.unwrap();
            assert_eq!(ran.stdout, format!("buildkitsandbox\n{number}\n"));
            assert_eq!(ran.exit.code, i32::try_from(number).unwrap());
            drop(step.mount);
            let own = fs::read_to_string(step.upper.join("own")).unwrap();
            assert_eq!(own, format!("{number}\n"));
        }
    }
}

#[tokio::test]
async fn hosts_and_resolver_of_the_image_are_hidden_and_untouched() {
    for config in every_runtime() {
        let mut sandbox = Sandbox::new(&config);
        write(sandbox.base("etc/hosts"), "192.0.2.1 of-the-image\n");
        write(sandbox.base("etc/resolv.conf"), "nameserver 192.0.2.1\n");
        let step = sandbox.step();
        let script = "cat /etc/hosts /etc/resolv.conf; echo x >> /etc/hosts; rm -f /etc/hosts";
        let request = sandbox.request(&step, &["/bin/sh", "-c", script]);
        let ran = run(&sandbox.runtime, request).await.unwrap();
        assert!(ran.stdout.contains("localhost buildkitsandbox"), "{ran:?}");
        assert!(!ran.stdout.contains("192.0.2.1"), "{ran:?}");
        let (packed, _) = sandbox.commit(step);
        // Two empty blocks: no entry at all.
        assert_eq!(packed.uncompressed_bytes, 1024);
    }
}

#[tokio::test]
async fn a_command_that_does_not_exist_is_named() {
    for config in every_runtime() {
        let mut sandbox = Sandbox::new(&config);
        let step = sandbox.step();
        let request = sandbox.request(&step, &["/bin/no-such-shell", "-c", "true"]);
        let ran = run(&sandbox.runtime, request).await.unwrap();
        assert_eq!(ran.exit.code, 127);
        assert!(ran.stderr.contains("no-such-shell"), "{ran:?}");
    }
}

/// Tries to reach a service of the host with a tool that really connects: the static busybox dies
/// for want of a resolver. A refusal by its own loopback shows that it tried.
async fn try_to_reach(addresses: &[&str]) {
    let listener = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let port = listener.local_addr().unwrap().port();
    let config = RuntimeConfig { network: DefaultNetwork::Slirp, ..RuntimeConfig::default() };
    let mut sandbox = Sandbox::new(&config);
    sandbox.add_program("/bin/bash");
    for address in ["127.0.0.1"].iter().chain(addresses) {
        let script = format!("timeout 1 bash -c ': > /dev/tcp/{address}/{port}'; exit $?");
        let ran = sandbox.sh_with(&script, |request| request.op.network = Network::Default).await;
        assert_ne!(ran.exit.code, 0, "{address}: {ran:?}");
        assert!(listener.accept().is_err(), "a container connected to {address}");
        if *address == "127.0.0.1" {
            assert!(ran.stderr.contains("refused"), "{ran:?}");
        }
    }
}

#[tokio::test]
async fn services_on_the_hosts_loopback_are_out_of_reach() {
    try_to_reach(&["10.0.2.2", "169.254.169.254"]).await;
}
