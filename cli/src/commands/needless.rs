//! Flags that ask for what is so anyway, and those who ask for the contrary.

use crate::args::Build;
use crate::exit::CliError;

/// What commands may ask for.
const ENTITLEMENTS: [&str; 2] = ["network.host", "security.insecure"];

/// What to say of such flags; one that asks for what is not is refused.
pub(super) fn needless(arguments: &Build) -> Result<Vec<String>, CliError> {
    let flags = &arguments.needless;
    for (flag, value) in [("--provenance", &flags.provenance), ("--sbom", &flags.sbom)] {
        let is_off = value.as_deref().is_none_or(|text| is_false(text) || is_disabled(text));
        if !is_off {
            return Err(no_attestations(flag));
        }
    }
    if flags.attest.iter().any(|text| !is_disabled(text)) {
        return Err(no_attestations("--attest"));
    }
    for name in &flags.allow {
        if !ENTITLEMENTS.contains(&name.as_str()) {
            let known = ENTITLEMENTS.join(", ");
            return Err(CliError::usage(format!("--allow {name}: one of {known} is expected")));
        }
    }
    let caches = [("--cache-from", &flags.cache_from), ("--cache-to", &flags.cache_to)];
    let given = caches.iter().filter(|(_, list)| !list.is_empty());
    let warning =
        |flag: &str| format!("{flag} has no effect: the farm has one cache for all builds");
    Ok(given.map(|(flag, _)| warning(flag)).collect())
}

fn is_false(text: &str) -> bool {
    matches!(text, "false" | "0" | "f" | "F" | "FALSE" | "False")
}

/// `type=…,disabled=true`.
fn is_disabled(text: &str) -> bool {
    text.split(',').any(|part| matches!(part, "disabled=true" | "disabled=1" | "disabled"))
}

fn no_attestations(flag: &str) -> CliError {
    CliError::Usage {
        message: format!("{flag}: attestations are not supported yet"),
        hint: Some("--provenance=false and --sbom=false are accepted".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Arguments, Command};
    use clap::Parser as _;

    fn of(list: &[&str]) -> Result<Vec<String>, CliError> {
        let all = ["slipway", "build"].iter().chain(list).chain(&["."]);
        match Arguments::try_parse_from(all).unwrap().command {
            Command::Build(build) => needless(&build),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_so_anyway_may_be_asked_for_and_the_contrary_not() {
        for (list, warnings) in [
            (&["--provenance=false", "--sbom=false"][..], 0),
            (&["--provenance", "mode=max,disabled=true"], 0),
            (&["--attest", "type=sbom,disabled=true"], 0),
            (&["--allow", "network.host,security.insecure"], 0),
            (&["--cache-from", "type=gha", "--cache-to", "type=gha,mode=max"], 2),
        ] {
            assert_eq!(of(list).unwrap().len(), warnings, "{list:?}");
        }
        for list in [
            &["--provenance=true"][..],
            &["--provenance=mode=max"],
            &["--sbom=true"],
            &["--attest", "type=sbom"],
            &["--allow", "device"],
        ] {
            assert!(of(list).is_err(), "{list:?}");
        }
    }
}
