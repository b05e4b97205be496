//! Stages that no worker of the farm could ever run.

use std::fmt::Write as _;

use common::Trust;

use super::facts::{Left, Needs, Offer};

/// Why no live worker could ever run such a stage, with the nearest offer; none when one could.
pub(crate) fn unplaceable(needs: &Needs, offers: &[Offer]) -> Option<String> {
    let mut nearest: Option<(usize, &Offer, Left)> = None;
    for offer in offers {
        let left = offer.lacks(needs)?;
        // Checks go from the platform to the memory: who fails later is nearer.
        let distance = match &left {
            Left::Platform => 1_000,
            Left::Label(_) => {
                100 + needs.labels.iter().filter(|label| !offer.labels.contains(label)).count()
            }
            Left::Cpu => 2,
            _ => 1,
        };
        if nearest.as_ref().is_none_or(|(best, ..)| distance < *best) {
            nearest = Some((distance, offer, left));
        }
    }
    let Some((_, offer, left)) = nearest else {
        return Some(format!("no worker is there: it needs {}", words(needs)));
    };
    let has = match left {
        Left::Platform => format!("the workers run {}", list(&offer.platforms)),
        Left::Label(label) if label == Trust::LABEL => {
            "no worker takes untrusted builds: one does with worker.accept_untrusted = true"
                .to_owned()
        }
        Left::Label(_) if offer.labels.is_empty() => "the nearest worker has no labels".to_owned(),
        Left::Label(_) => format!("the nearest worker has {}", list(&offer.labels)),
        Left::Cpu => format!("the nearest worker has {} CPUs", cpus(offer.cpu_millis)),
        _ => format!("the nearest worker has {}", memory(offer.memory_bytes)),
    };
    Some(format!("no worker can run it: it needs {}; {has}", words(needs)))
}

fn words(needs: &Needs) -> String {
    let mut text = needs.platform.clone();
    if !needs.labels.is_empty() {
        let _ = write!(text, " with {}", list(&needs.labels));
    }
    if needs.cpu_millis > 0 {
        let _ = write!(text, ", {} CPUs", cpus(needs.cpu_millis));
    }
    if needs.memory_bytes > 0 {
        let _ = write!(text, ", {}", memory(needs.memory_bytes));
    }
    text
}

fn list(words: &[String]) -> String {
    words.join(", ")
}

fn cpus(millis: u32) -> String {
    let (whole, rest) = (millis / 1000, millis % 1000);
    if rest == 0 { whole.to_string() } else { format!("{whole}.{rest:03}") }
}

fn memory(bytes: u64) -> String {
    format!("{} MiB of memory", bytes >> 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offer(labels: &[&str]) -> Offer {
        let labels = labels.iter().map(|&label| label.to_owned()).collect();
        let platforms = vec!["linux/amd64".to_owned()];
        Offer { platforms, labels, cpu_millis: 4_000, memory_bytes: 1 << 30 }
    }

    fn needs(labels: &[&str]) -> Needs {
        let labels = labels.iter().map(|&label| label.to_owned()).collect();
        Needs { platform: "linux/amd64".into(), labels, ..Needs::default() }
    }

    #[test]
    fn a_stage_that_one_worker_can_run_is_placeable() {
        assert_eq!(unplaceable(&needs(&["gpu"]), &[offer(&[]), offer(&["gpu", "eu"])]), None);
        assert_eq!(unplaceable(&needs(&[]), &[offer(&[])]), None);
        // A worker that does not say what it has takes everything.
        let silent = Offer { cpu_millis: 0, memory_bytes: 0, ..offer(&[]) };
        let large = Needs { cpu_millis: 64_000, memory_bytes: 1 << 40, ..needs(&[]) };
        assert_eq!(unplaceable(&large, &[silent]), None);
    }

    #[test]
    fn an_unplaceable_stage_names_what_it_needs_and_the_nearest_offer() {
        let offers = [offer(&["eu"]), offer(&["gpu", "eu"])];
        let said = unplaceable(&needs(&["gpu", "us"]), &offers).unwrap();
        let wanted = "no worker can run it: it needs linux/amd64 with gpu, us; \
                      the nearest worker has gpu, eu";
        assert_eq!(said, wanted);
        let wide = Needs { cpu_millis: 6_500, ..needs(&[]) };
        let said = unplaceable(&wide, &offers).unwrap();
        assert!(said.ends_with("linux/amd64, 6.500 CPUs; the nearest worker has 4 CPUs"), "{said}");
        let large = Needs { memory_bytes: 2 << 30, ..needs(&[]) };
        let said = unplaceable(&large, &offers).unwrap();
        assert!(said.ends_with("2048 MiB of memory; the nearest worker has 1024 MiB of memory"));
        let other = Needs { platform: "linux/arm64".into(), ..needs(&[]) };
        let said = unplaceable(&other, &offers).unwrap();
        assert!(said.ends_with("needs linux/arm64; the workers run linux/amd64"), "{said}");
        let said = unplaceable(&needs(&[]), &[]).unwrap();
        assert_eq!(said, "no worker is there: it needs linux/amd64");
    }
}
