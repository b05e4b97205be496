//! Progress, in the form that was asked for.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Stderr, Write as _};
use std::time::Instant;

use api::public::v1::{BuildView, LogLine, LogStream, StageView};
use common::StageId;
use common::stage::{StageKind, StageState};
use serde_json::json;

use super::{bytes, duration};
use crate::args::Progress;
use crate::context::SentContext;

/// Log lines of a failed step that the terminal view shows.
const TAIL: usize = 20;
const SPINNER: [char; 10] = ['⠋', '⠙', '⠹', '⠸', '⠼', '⠴', '⠦', '⠧', '⠇', '⠏'];

/// Shows progress on standard error.
pub(crate) struct Display {
    progress: Progress,
    out: Stderr,
    start: Instant,
    view: Option<BuildView>,
    /// What was said of a step or stage, so that it is said once.
    said: BTreeMap<(StageId, u32), String>,
    warned: BTreeSet<String>,
    tail: BTreeMap<(StageId, u32), Vec<String>>,
    /// Lines that came before the view that knows their stage.
    early: Vec<LogLine>,
    drawn_lines: u16,
    ticks: usize,
}

impl Display {
    pub(crate) fn new(progress: Progress) -> Self {
        Self {
            progress,
            out: std::io::stderr(),
            start: Instant::now(),
            view: None,
            said: BTreeMap::new(),
            warned: BTreeSet::new(),
            tail: BTreeMap::new(),
            early: Vec::new(),
            drawn_lines: 0,
            ticks: 0,
        }
    }

    fn say(&mut self, text: &str) {
        let _ = writeln!(self.out, "{text}");
    }

    /// The context was sent.
    pub(crate) fn context(&mut self, sent: &SentContext) {
        if matches!(self.progress, Progress::Plain | Progress::Tty) {
            let text = format!(
                "context: {} entries, {}, {} sent, {}",
                sent.entries,
                bytes(sent.content_bytes),
                bytes(sent.sent_bytes),
                duration(u64::try_from(self.start.elapsed().as_millis()).unwrap_or(0)),
            );
            self.say(&text);
        }
    }

    /// The build was accepted.
    pub(crate) fn submitted(&mut self, view: &BuildView) {
        if matches!(self.progress, Progress::Plain | Progress::Tty) {
            self.say(&format!("build {}", view.id));
        }
    }

    /// Something to know.
    pub(crate) fn note(&mut self, text: &str) {
        if self.progress != Progress::Quiet {
            self.erase();
            self.say(text);
        }
    }

    /// A line of a log.
    pub(crate) fn line(&mut self, line: &LogLine) {
        match self.progress {
            Progress::Rawjson => print_json("log", line),
            // The instruction itself is said with the step's state.
            Progress::Plain if line.stream != LogStream::System || line.step == 0 => {
                match self.label(line.stage) {
                    Some(label) => self.say(&format!("#{label} {} | {}", line.step, line.text)),
                    None => self.early.push(line.clone()),
                }
            }
            _ => {}
        }
        let tail = self.tail.entry((line.stage, line.step)).or_default();
        if tail.len() == TAIL {
            tail.remove(0);
        }
        tail.push(line.text.clone());
    }

    fn label(&self, stage: StageId) -> Option<String> {
        let stages = &self.view.as_ref()?.stages;
        Some(stages.iter().find(|view| view.id == stage)?.label.clone())
    }

    /// The build changed.
    pub(crate) fn view(&mut self, view: &BuildView) {
        match self.progress {
            Progress::Rawjson => print_json("build", view),
            Progress::Plain => self.plain(view),
            _ => {}
        }
        self.view = Some(view.clone());
        for line in std::mem::take(&mut self.early) {
            if let Some(label) = self.label(line.stage) {
                self.say(&format!("#{label} {} | {}", line.step, line.text));
            }
        }
    }

    fn plain(&mut self, view: &BuildView) {
        for warning in &view.warnings {
            if self.warned.insert(warning.clone()) {
                self.say(&format!("warning: {warning}"));
            }
        }
        for stage in &view.stages {
            let count = stage.steps.len() + 1;
            for step in &stage.steps {
                let head = format!("#{} [{} {}/{count}]", stage.label, stage.label, step.number);
                let text = match step.state.as_str() {
                    "pending" => continue,
                    "running" => format!("{head} {}", step.display),
                    "cached" => format!("{head} {}\n{head} CACHED", step.display),
                    "done" => format!("{head} DONE {}", duration(step.timing.run_millis)),
                    other => format!("{head} {}", other.to_uppercase()),
                };
                self.once(stage.id, step.number, text);
            }
            if let Some(text) = stage_text(stage) {
                self.once(stage.id, 0, format!("#{} {text}", stage.label));
            }
        }
    }

    fn once(&mut self, stage: StageId, step: u32, text: String) {
        if self.said.get(&(stage, step)) != Some(&text) {
            self.say(&text);
            self.said.insert((stage, step), text);
        }
    }

    /// Time passed.
    pub(crate) fn tick(&mut self) {
        if self.progress == Progress::Tty {
            self.ticks += 1;
            self.erase();
            self.draw();
        }
    }

    fn erase(&mut self) {
        if self.drawn_lines > 0 {
            let _ = write!(self.out, "\x1b[{}A\x1b[J", self.drawn_lines);
            self.drawn_lines = 0;
        }
    }

    fn draw(&mut self) {
        let Some(view) = &self.view else { return };
        let size = rustix::termios::tcgetwinsize(std::io::stderr());
        let (width, height) =
            size.map_or((80, 24), |size| (size.ws_col.max(20), size.ws_row.max(4)));
        let spinner = SPINNER[self.ticks % SPINNER.len()];
        let mut lines = vec![format!(
            "{spinner} {}  {}",
            view.state,
            duration(u64::try_from(self.start.elapsed().as_millis()).unwrap_or(0))
        )];
        lines.extend(view.stages.iter().map(|stage| tty_line(stage, spinner)));
        lines.truncate(usize::from(height) - 1);
        for line in &lines {
            let cut: String = line.chars().take(usize::from(width) - 1).collect();
            let _ = writeln!(self.out, "{cut}");
        }
        self.drawn_lines = u16::try_from(lines.len()).unwrap_or(0);
    }

    /// The build has ended: the last state stays, and of a failed step the end of its log.
    pub(crate) fn end(&mut self, view: &BuildView) {
        self.view = Some(view.clone());
        match self.progress {
            Progress::Tty => {
                self.erase();
                self.draw();
                self.drawn_lines = 0;
            }
            Progress::Plain => self.plain(view),
            _ => return,
        }
        for stage in &view.stages {
            let Some(step) = stage.steps.iter().find(|step| step.state == "failed") else {
                continue;
            };
            let tail = self.tail.get(&(stage.id, step.number)).cloned().unwrap_or_default();
            self.say(&format!("------\n > [{} {}] {}", stage.label, step.number, step.display));
            for line in tail {
                self.say(&format!("   {line}"));
            }
            self.say("------");
        }
    }
}

/// One event as a line of JSON.
fn print_json(kind: &str, value: &impl serde::Serialize) {
    let line = json!({"type": kind, "value": value});
    super::print(&line.to_string());
}

/// What plain progress says of a stage as a whole.
fn stage_text(stage: &StageView) -> Option<String> {
    let worker = stage.worker.as_deref().unwrap_or("-");
    if let Some(leader) = stage.attached_to {
        let build = leader.build;
        return match stage.state {
            StageState::Attached => Some(format!("RUNS on {worker} for build {build}, too")),
            StageState::Succeeded => Some(format!("DONE on {worker} for build {build}, too")),
            StageState::Failed => Some(format!("FAILED on {worker} for build {build}, too")),
            _ => None,
        };
    }
    match stage.state {
        StageState::Running if stage.is_done => Some(format!("DONE on {worker}")),
        StageState::Running => Some(format!("RUNS on {worker}")),
        StageState::Parked => stage.waiting_for.clone(),
        StageState::Succeeded => Some(format!("DONE on {worker}")),
        StageState::Failed => Some(format!("FAILED on {worker}")),
        StageState::Cached if stage.kind == StageKind::Stage => Some("CACHED".to_owned()),
        StageState::Cancelled => Some("CANCELLED".to_owned()),
        _ => None,
    }
}

fn tty_line(stage: &StageView, spinner: char) -> String {
    let total = stage.steps.len();
    let done =
        stage.steps.iter().filter(|step| matches!(step.state.as_str(), "done" | "cached")).count();
    let mark = match stage.state {
        StageState::Succeeded | StageState::Cached => '✔',
        StageState::Failed => '✘',
        StageState::Running => spinner,
        StageState::Parked => '⏸',
        StageState::Skipped | StageState::Cancelled => '-',
        _ => '·',
    };
    let running = stage.steps.iter().find(|step| step.state == "running");
    let what = match (running, &stage.waiting_for) {
        (Some(step), None) => step.display.clone(),
        (_, Some(waiting)) => waiting.clone(),
        (None, None) => stage.state.to_string(),
    };
    let worker = stage.worker.as_deref().unwrap_or("");
    format!(" {mark} {:14} {:12} {done}/{total}  {what}", stage.label, worker)
}
