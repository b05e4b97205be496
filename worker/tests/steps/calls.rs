//! System calls that a RUN may make and those that it may not: Docker's default profile.
//!
//! perl makes them, by number: it is in every Debian, and needs nothing but itself for that.

use worker::runtime::RuntimeConfig;

use crate::sandbox::{Sandbox, every_runtime};

/// Numbers of calls on this machine.
#[cfg(target_arch = "x86_64")]
mod number {
    pub(super) const CLONE: u32 = 56;
    pub(super) const UNSHARE: u32 = 272;
    pub(super) const KEYCTL: u32 = 250;
    pub(super) const ADD_KEY: u32 = 248;
    pub(super) const BPF: u32 = 321;
    pub(super) const MOUNT: u32 = 165;
    pub(super) const PERSONALITY: u32 = 135;
    pub(super) const PTRACE: u32 = 101;
    pub(super) const SOCKET: u32 = 41;
    pub(super) const USERFAULTFD: u32 = 323;
    pub(super) const OPEN_BY_HANDLE_AT: u32 = 304;
    pub(super) const GETPID: u32 = 39;
}
#[cfg(target_arch = "aarch64")]
mod number {
    pub(super) const CLONE: u32 = 220;
    pub(super) const UNSHARE: u32 = 97;
    pub(super) const KEYCTL: u32 = 219;
    pub(super) const ADD_KEY: u32 = 217;
    pub(super) const BPF: u32 = 280;
    pub(super) const MOUNT: u32 = 40;
    pub(super) const PERSONALITY: u32 = 92;
    pub(super) const PTRACE: u32 = 117;
    pub(super) const SOCKET: u32 = 198;
    pub(super) const USERFAULTFD: u32 = 282;
    pub(super) const OPEN_BY_HANDLE_AT: u32 = 265;
    pub(super) const GETPID: u32 = 172;
}
/// The same everywhere.
const CLONE3: u32 = 435;
const IO_URING_SETUP: u32 = 425;
const FSOPEN: u32 = 430;
/// Newer than any library that wrote the filter.
const FROM_THE_FUTURE: u32 = 600;

const EPERM: i32 = 1;
const ENOSYS: i32 = 38;
const EFAULT: i32 = 14;

fn sandbox(config: &RuntimeConfig) -> Sandbox {
    let sandbox = Sandbox::new(config);
    sandbox.add_program("/usr/bin/perl");
    sandbox
}

/// Makes calls in a container and gives their errors, 0 for none.
async fn errors(sandbox: &mut Sandbox, calls: &[(u32, &[u64])], insecure: bool) -> Vec<i32> {
    let mut program = String::from("$| = 1;");
    for (number, arguments) in calls {
        let arguments: Vec<String> = arguments.iter().map(u64::to_string).collect();
        let arguments = [vec![number.to_string()], arguments].concat().join(", ");
        // A child that was made has nothing to say.
        let is_child = if *number == number::CLONE { "$r == 0" } else { "0" };
        program.push_str(&format!(
            "$r = syscall({arguments}); exit 0 if {is_child}; \
             print(($r == -1 ? $!+0 : 0), \"\\n\");"
        ));
    }
    let step = sandbox.step();
    let mut request = sandbox.request(&step, &["/usr/bin/perl", "-e", &program]);
    if insecure {
        request.op.security = common::plan::Security::Insecure;
    }
    let ran = crate::sandbox::run(&sandbox.runtime, request).await.unwrap();
    assert_eq!(ran.exit.code, 0, "{ran:?}");
    ran.stdout.lines().map(|line| line.parse().unwrap()).collect()
}

#[tokio::test]
async fn calls_that_dockers_profile_refuses_are_refused() {
    const CLONE_NEWUSER: u64 = 0x1000_0000;
    const SIGCHLD: u64 = 17;
    let checks: [(&str, u32, &[u64], i32); 19] = [
        ("getpid", number::GETPID, &[], 0),
        ("unshare of a user namespace", number::UNSHARE, &[CLONE_NEWUSER], EPERM),
        ("unshare of nothing", number::UNSHARE, &[0], EPERM),
        (
            "clone into a user namespace",
            number::CLONE,
            &[CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0],
            EPERM,
        ),
        ("clone into a network", number::CLONE, &[0x4000_0000 | SIGCHLD, 0, 0, 0, 0], EPERM),
        ("fork", number::CLONE, &[SIGCHLD, 0, 0, 0, 0], 0),
        ("clone3", CLONE3, &[0, 0], ENOSYS),
        ("keyctl", number::KEYCTL, &[0, 0], EPERM),
        ("add_key", number::ADD_KEY, &[0, 0, 0, 0, 0], EPERM),
        ("bpf", number::BPF, &[0, 0, 0], EPERM),
        ("mount", number::MOUNT, &[0, 0, 0, 0, 0], EPERM),
        ("fsopen", FSOPEN, &[0, 0], EPERM),
        ("io_uring", IO_URING_SETUP, &[1, 0], EPERM),
        ("userfaultfd", number::USERFAULTFD, &[0], EPERM),
        ("open_by_handle_at", number::OPEN_BY_HANDLE_AT, &[0, 0, 0], EPERM),
        ("socket of the kernel's cryptography", number::SOCKET, &[38, 5, 0], EPERM),
        ("socket to the machine's host", number::SOCKET, &[40, 1, 0], EPERM),
        ("socket", number::SOCKET, &[1, 1, 0], 0),
        ("a call that nobody knows", FROM_THE_FUTURE, &[], ENOSYS),
    ];
    for config in every_runtime() {
        let mut sandbox = sandbox(&config);
        let calls: Vec<_> = checks.iter().map(|(_, number, args, _)| (*number, *args)).collect();
        let found = errors(&mut sandbox, &calls, false).await;
        for ((what, _, _, expected), found) in checks.iter().zip(found) {
            assert_eq!(found, *expected, "{what} with {:?}", config.kind);
        }
    }
}

#[tokio::test]
async fn personalities_are_the_usual_ones() {
    for config in every_runtime() {
        let mut sandbox = sandbox(&config);
        // Ask, Linux, 32 bits, no randomised addresses.
        let values: [&[u64]; 4] = [&[0xffff_ffff], &[0], &[8], &[0x4_0000]];
        let calls: Vec<_> = values.iter().map(|value| (number::PERSONALITY, *value)).collect();
        let found = errors(&mut sandbox, &calls, false).await;
        assert_eq!(found[..3], [0, 0, 0]);
        assert_ne!(found[3], 0);
    }
}

#[tokio::test]
async fn a_debugger_may_trace_its_own_child() {
    // PTRACE_ATTACH stops the child, PTRACE_DETACH lets it go.
    let program = format!(
        "my $child = fork(); if ($child == 0) {{ sleep 1 while 1 }} \
         print syscall({ptrace}, 16, $child, 0, 0), \"\\n\"; \
         print waitpid($child, 2) == $child ? 1 : 0, \"\\n\"; \
         print syscall({ptrace}, 17, $child, 0, 0), \"\\n\"; kill 'KILL', $child",
        ptrace = number::PTRACE,
    );
    for config in every_runtime() {
        let mut sandbox = sandbox(&config);
        let step = sandbox.step();
        let request = sandbox.request(&step, &["/usr/bin/perl", "-e", &program]);
        let ran = crate::sandbox::run(&sandbox.runtime, request).await.unwrap();
        assert_eq!(ran.stdout, "0\n1\n0\n", "{ran:?}");
    }
}

#[tokio::test]
async fn an_insecure_command_is_not_filtered() {
    for config in every_runtime() {
        let mut sandbox = sandbox(&RuntimeConfig { allow_insecure: true, ..config });
        let calls: [(u32, &[u64]); 2] =
            [(number::MOUNT, &[0, 0, 0, 0, 0]), (number::UNSHARE, &[0])];
        assert_eq!(errors(&mut sandbox, &calls, true).await, [EFAULT, 0]);
    }
}
