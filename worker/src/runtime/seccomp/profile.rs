//! The profile as the runtime specification has it (`config-linux.md`, "Seccomp").

use serde_json::{Value, json};

use super::table;

/// `EPERM`.
const NOT_PERMITTED: u32 = 1;
/// `ENOSYS`, on every architecture that is named here.
const NO_SUCH_CALL: u32 = 38;

/// The annotation by which crun takes a filter that is compiled already (crun(1)).
pub(in crate::runtime) const COMPILED_ANNOTATION: &str = "run.oci.seccomp_bpf_data";

/// A filter for containers.
#[derive(Debug)]
pub(in crate::runtime) struct Filter {
    /// The section `linux.seccomp`.
    pub(in crate::runtime) profile: Value,
    /// The same as the kernel takes it, in base64, for a runtime that takes it so: compiling it
    /// costs longer than all else that starting a container does.
    pub(in crate::runtime) compiled: Option<String>,
}

/// Calls that are allowed under a condition.
pub(super) struct Group {
    pub(super) names: &'static str,
    pub(super) when: When,
}

/// The condition.
pub(super) enum When {
    /// One of these architectures, as the compiler names them.
    Architecture(&'static [&'static str]),
    /// The container has this capability.
    Capability(&'static str),
}

/// What the runtime specification calls an architecture, and those whose programs it runs too.
/// None where the profile does not know it.
fn architectures(name: &str) -> Option<&'static [&'static str]> {
    Some(match name {
        "x86_64" => &["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "aarch64" => &["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"],
        "s390x" => &["SCMP_ARCH_S390X", "SCMP_ARCH_S390"],
        "riscv64" => &["SCMP_ARCH_RISCV64"],
        "powerpc64" => &["SCMP_ARCH_PPC64LE"],
        _ => return None,
    })
}

/// The section `linux.seccomp` of a container's configuration; none on an architecture for which
/// there is no profile.
pub(in crate::runtime) fn profile(capabilities: &[&str], architecture: &str) -> Option<Value> {
    let names = architectures(architecture)?;
    let has = |wanted: &str| capabilities.contains(&wanted);
    let mut allowed: Vec<&str> = table::ALLOWED.split_whitespace().collect();
    for group in table::CONDITIONAL {
        let holds = match group.when {
            When::Architecture(list) => list.contains(&architecture),
            When::Capability(name) => has(name),
        };
        if holds {
            allowed.extend(group.names.split_whitespace());
        }
    }
    allowed.sort_unstable();
    allowed.dedup();
    let refused: Vec<&str> =
        table::REFUSED.split_whitespace().filter(|name| !allowed.contains(name)).collect();
    let mut rules = vec![
        json!({"names": allowed, "action": "SCMP_ACT_ALLOW"}),
        json!({"names": refused, "action": "SCMP_ACT_ERRNO", "errnoRet": NOT_PERMITTED}),
    ];
    rules.extend(sockets());
    rules.extend(table::PERSONALITIES.iter().map(|value| {
        rule("personality", None, json!({"index": 0, "value": value, "op": "SCMP_CMP_EQ"}))
    }));
    if !has("CAP_SYS_ADMIN") {
        rules.extend(clone_rules(architecture));
    }
    Some(json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": NO_SUCH_CALL,
        "architectures": names,
        "syscalls": rules,
    }))
}

/// A rule for one call whose argument is `argument`: allowed, or failing with an error.
fn rule(name: &str, error: Option<u32>, argument: Value) -> Value {
    match error {
        None => json!({"names": [name], "action": "SCMP_ACT_ALLOW", "args": [argument]}),
        Some(error) => json!({
            "names": [name], "action": "SCMP_ACT_ERRNO", "errnoRet": error, "args": [argument],
        }),
    }
}

/// All families but the refused ones. A runtime takes two conditions on one argument as
/// alternatives, so that only the ends can be ranges.
fn sockets() -> Vec<Value> {
    let family = |value: u64, op: &str| json!({"index": 0, "value": value, "op": op});
    let refused = table::REFUSED_SOCKETS;
    let (first, last) = (refused[0], refused[refused.len() - 1]);
    let between = (first..last).filter(|value| !refused.contains(value));
    let mut rules = vec![
        rule("socket", None, family(first, "SCMP_CMP_LT")),
        rule("socket", None, family(last, "SCMP_CMP_GT")),
    ];
    rules.extend(between.map(|value| rule("socket", None, family(value, "SCMP_CMP_EQ"))));
    rules.extend(
        refused
            .iter()
            .map(|value| rule("socket", Some(NOT_PERMITTED), family(*value, "SCMP_CMP_EQ"))),
    );
    rules
}

/// `clone` without any of the flags that make namespaces. `clone3`, whose flags lie in memory, does
/// not exist: programs fall back.
fn clone_rules(architecture: &str) -> Vec<Value> {
    // The order of the arguments is another one there (clone(2)).
    let index = u32::from(architecture == "s390x");
    let masked = |mask: u64, value: u64| json!({"index": index, "value": mask, "valueTwo": value, "op": "SCMP_CMP_MASKED_EQ"});
    let all = table::NAMESPACE_FLAGS.iter().fold(0, |all, flag| all | flag);
    let mut rules = vec![rule("clone", None, masked(all, 0))];
    rules.extend(
        table::NAMESPACE_FLAGS
            .iter()
            .map(|flag| rule("clone", Some(NOT_PERMITTED), masked(*flag, *flag))),
    );
    rules
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules_of<'a>(profile: &'a Value, name: &str) -> Vec<&'a Value> {
        let rules = profile["syscalls"].as_array().unwrap().iter();
        rules.filter(|rule| rule["names"].as_array().unwrap().iter().any(|n| n == name)).collect()
    }

    #[test]
    fn capabilities_and_the_architecture_decide_what_is_allowed() {
        let check = |capabilities: &[&str], architecture: &str, name: &str, expected: &str| {
            let profile = profile(capabilities, architecture).unwrap();
            let rules = rules_of(&profile, name);
            assert_eq!(rules.len(), 1, "{name}: {rules:?}");
            assert_eq!(rules[0]["action"], expected, "{name}");
        };
        check(&[], "x86_64", "read", "SCMP_ACT_ALLOW");
        check(&[], "x86_64", "mount", "SCMP_ACT_ERRNO");
        check(&["CAP_SYS_ADMIN"], "x86_64", "mount", "SCMP_ACT_ALLOW");
        check(&["CAP_SYS_ADMIN"], "x86_64", "clone", "SCMP_ACT_ALLOW");
        check(&[], "x86_64", "chroot", "SCMP_ACT_ERRNO");
        check(&["CAP_SYS_CHROOT"], "x86_64", "chroot", "SCMP_ACT_ALLOW");
        check(&[], "x86_64", "arch_prctl", "SCMP_ACT_ALLOW");
        check(&[], "aarch64", "arch_prctl", "SCMP_ACT_ERRNO");
        check(&["CAP_SYS_ADMIN"], "aarch64", "keyctl", "SCMP_ACT_ERRNO");
        assert!(profile(&[], "sparc64").is_none());
    }

    #[test]
    fn no_call_is_both_allowed_and_refused_without_a_condition() {
        let profile = profile(&["CAP_SYS_CHROOT"], "x86_64").unwrap();
        let list = |at: usize| profile["syscalls"][at]["names"].as_array().unwrap();
        assert_eq!(list(0).iter().filter(|name| list(1).contains(name)).count(), 0);
        for name in ["clone", "socket", "personality", "clone3"] {
            assert!(!list(0).iter().any(|listed| listed == name), "{name}");
        }
    }

    #[test]
    fn namespaces_need_a_flag_that_clone_may_not_have() {
        let profile = profile(&[], "x86_64").unwrap();
        let rules = rules_of(&profile, "clone");
        assert_eq!(rules[0]["args"][0]["value"], 0x7e02_0000);
        assert_eq!(rules.len(), 8);
        let profile = super::profile(&[], "s390x").unwrap();
        assert_eq!(rules_of(&profile, "clone")[0]["args"][0]["index"], 1);
    }
}
