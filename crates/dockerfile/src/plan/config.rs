//! Instructions that change the image's configuration only.

use std::collections::BTreeMap;

use common::image::{Empty, Healthcheck};

use super::history;
use super::stage::{Planner, Work};
use crate::diagnostic::Problem;
use crate::instruction::{CommandForm, Health, Instruction};

impl Planner<'_> {
    pub(super) fn config_only(
        &self,
        work: &mut Work,
        instruction: &Instruction,
    ) -> Result<(), Problem> {
        let text = match instruction {
            Instruction::Label(pairs) => {
                let mut shown = Vec::new();
                for (name, value) in pairs {
                    let (name, value) = (self.expand(work, name)?, self.expand(work, value)?);
                    shown.push(format!("{name}={value}"));
                    work.config.labels.get_or_insert_default().insert(name, value);
                }
                format!("LABEL {}", shown.join(" "))
            }
            Instruction::Cmd(command) => {
                let argv = with_shell(work, command);
                work.has_cmd = true;
                // Of either form, as BuildKit writes it.
                work.config.args_escaped = true;
                let text = format!("CMD {}", history::quoted(&argv));
                work.config.cmd = Some(argv).filter(|argv| !argv.is_empty());
                text
            }
            Instruction::Entrypoint(command) => {
                let argv = with_shell(work, command);
                if !work.has_cmd {
                    work.config.cmd = None;
                }
                let text = format!("ENTRYPOINT {}", history::quoted(&argv));
                work.config.entrypoint = Some(argv).filter(|argv| !argv.is_empty());
                text
            }
            Instruction::User(user) => {
                work.config.user = self.expand(work, user)?;
                format!("USER {}", work.config.user)
            }
            Instruction::Expose(words) => self.expose(work, words)?,
            Instruction::Volume(words) => {
                let mut volumes = Vec::new();
                for word in words {
                    let volume = self.expand(work, word)?;
                    if volume.is_empty() {
                        let message = "VOLUME specified can not be an empty string";
                        return Err(Problem::new("missing-argument", message));
                    }
                    volumes.push(volume);
                }
                let set = work.config.volumes.get_or_insert_default();
                set.extend(volumes.iter().map(|volume| (volume.clone(), Empty {})));
                format!("VOLUME {}", history::plain(&volumes))
            }
            Instruction::StopSignal(signal) => {
                let signal = self.expand(work, signal)?;
                check_signal(&signal)?;
                work.config.stop_signal = Some(signal.clone());
                format!("STOPSIGNAL {signal}")
            }
            Instruction::Shell(shell) => {
                work.config.shell = Some(shell.clone());
                format!("SHELL {}", history::plain(shell))
            }
            Instruction::Healthcheck(health) => {
                let health = healthcheck(health.as_ref());
                let text = history::healthcheck(&health);
                work.config.healthcheck = Some(health);
                text
            }
            Instruction::Maintainer(author) => {
                work.author = Some(author.clone());
                format!("MAINTAINER {author}")
            }
            Instruction::OnBuild(text) => {
                work.config.on_build.get_or_insert_default().push(text.clone());
                return Ok(());
            }
            // These change files or variables and are handled elsewhere; FROM begins a stage.
            Instruction::From { .. }
            | Instruction::Arg(_)
            | Instruction::Env(_)
            | Instruction::Run(_)
            | Instruction::Copy(_)
            | Instruction::Workdir(_) => return Ok(()),
        };
        work.history.push(history::entry(text, true));
        Ok(())
    }

    fn expose(&self, work: &mut Work, words: &[String]) -> Result<String, Problem> {
        let mut ports = Vec::new();
        for word in words {
            for word in self.expand(work, word)?.split_whitespace() {
                ports.append(&mut parse_port(word)?);
                self.charge(work, 32 * ports.len())?;
            }
        }
        if ports.is_empty() {
            let message = "EXPOSE requires at least one argument";
            return Err(Problem::new("missing-argument", message));
        }
        ports.sort();
        let set = work.config.exposed_ports.get_or_insert_default();
        set.extend(ports.iter().map(|port| (port.clone(), Empty {})));
        Ok(format!("EXPOSE {}", history::plain(&ports)))
    }
}

pub(super) fn shell(work: &Work) -> Vec<String> {
    work.config.shell.clone().unwrap_or_else(|| vec!["/bin/sh".to_owned(), "-c".to_owned()])
}

pub(super) fn with_shell(work: &Work, command: &CommandForm) -> Vec<String> {
    match command {
        CommandForm::Exec(argv) => argv.clone(),
        CommandForm::Shell(text) => {
            let mut argv = shell(work);
            argv.push(text.clone());
            argv
        }
    }
}

/// `port[-port][/protocol]`, in lower case; an address and a host port before it are dropped.
fn parse_port(word: &str) -> Result<Vec<String>, Problem> {
    let bad = |what: &str| {
        Problem::new("bad-port", format!("invalid port: {word:?}: {what}")).blaming(word)
    };
    let (range, protocol) = word.split_once('/').unwrap_or((word, "tcp"));
    let protocol = match protocol.to_ascii_lowercase() {
        empty if empty.is_empty() => "tcp".to_owned(),
        protocol => protocol,
    };
    if !["tcp", "udp", "sctp"].contains(&protocol.as_str()) {
        return Err(bad(&format!("invalid proto: {protocol}")));
    }
    let range = range.rsplit(':').next().unwrap_or(range);
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    let number = |text: &str| {
        let digits = Some(text).filter(|text| !text.starts_with('+'));
        let port = digits.and_then(|text| text.parse::<u16>().ok());
        port.ok_or_else(|| bad("invalid containerPort"))
    };
    let (first, last) = (number(first)?, number(last)?);
    if first > last {
        return Err(bad("the range goes backwards"));
    }
    Ok((first..=last).map(|port| format!("{port}/{protocol}")).collect())
}

fn check_signal(signal: &str) -> Result<(), Problem> {
    let name = signal.to_ascii_uppercase();
    let name = name.strip_prefix("SIG").unwrap_or(&name);
    let known = [
        "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "IOT", "BUS", "FPE", "KILL", "USR1", "SEGV",
        "USR2", "PIPE", "ALRM", "TERM", "STKFLT", "CHLD", "CLD", "CONT", "STOP", "TSTP", "TTIN",
        "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "POLL", "PWR", "SYS",
    ];
    let real_time = matches!(name, "RTMIN" | "RTMAX")
        || (1..=15).any(|above| name == format!("RTMIN+{above}"))
        || (1..=14).any(|below| name == format!("RTMAX-{below}"));
    // Any number but zero, as in BuildKit; the engine that runs the image looks closer.
    let number = signal.parse::<i64>().is_ok_and(|number| number != 0);
    if known.contains(&name) || real_time || number {
        return Ok(());
    }
    Err(Problem::new("bad-signal", format!("invalid signal: {signal}")).blaming(signal))
}

fn healthcheck(health: Option<&Health>) -> Healthcheck {
    let Some(health) = health else {
        return Healthcheck { test: vec!["NONE".to_owned()], ..Healthcheck::default() };
    };
    let test = match &health.command {
        CommandForm::Exec(argv) => [vec!["CMD".to_owned()], argv.clone()].concat(),
        CommandForm::Shell(text) => vec!["CMD-SHELL".to_owned(), text.clone()],
    };
    let options: BTreeMap<&str, i64> =
        health.options.iter().map(|(name, value)| (name.as_str(), *value)).collect();
    let get = |name: &str| options.get(name).copied().unwrap_or(0);
    Healthcheck {
        test,
        interval: get("interval"),
        timeout: get("timeout"),
        start_period: get("start-period"),
        start_interval: get("start-interval"),
        retries: get("retries"),
    }
}
