//! What the target needs.

use std::collections::BTreeMap;

use common::outcome::LineRange;
use common::{Failure, Platform};

use super::mounts;
use super::scope::Global;
use crate::diagnostic::{Problem, nearest};
use crate::instruction::{Instruction, Spanned};
use crate::source::read_trigger;
use crate::{Dockerfile, ImageFacts, ImageNeed, NamedContext, Options, instruction};

/// Most instructions of all needed stages, with the triggers that fire in each.
const MAX_INSTRUCTIONS: usize = 20_000;
/// Most bytes of them.
const MAX_INSTRUCTION_BYTES: usize = 32 << 20;
/// For how many images a stage that may have been meant is looked for.
const MAX_SUGGESTIONS: usize = 100;

/// The needed stages, producers first, and the images that nobody knows yet.
pub(crate) struct Graph<'a> {
    pub(crate) global: Global<'a>,
    pub(crate) stages: Vec<Node>,
    /// Position in `stages` by position in the Dockerfile.
    pub(crate) positions: BTreeMap<usize, usize>,
    pub(crate) missing: Vec<ImageNeed>,
}

/// A needed stage.
pub(crate) struct Node {
    /// Position in the Dockerfile.
    pub(crate) source: usize,
    pub(crate) base: NodeBase,
    pub(crate) platform: Platform,
    /// Triggers of the base, then the stage's own.
    pub(crate) instructions: Vec<Spanned>,
    /// The stages that it copies or mounts from, by position in the Dockerfile.
    reads: Vec<usize>,
}

/// What a stage starts from, by position in the Dockerfile or reference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NodeBase {
    Scratch,
    /// A named context of local files.
    Context(String),
    Stage(usize),
    Image(String),
}

/// Where `--from` leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum From {
    Scratch,
    Stage(usize),
    /// A named context of local files.
    Context(String),
    Image(String),
}

pub(crate) fn build<'a>(
    file: &Dockerfile,
    options: &'a Options,
    known: &ImageFacts,
) -> Result<Graph<'a>, Vec<Failure>> {
    let fail = |(problem, lines): (Problem, LineRange)| vec![file.source.failure(problem, lines)];
    let global = Global::new(file, options).map_err(fail)?;
    let target = find_target(file, options).map_err(fail)?;
    let mut needed = vec![false; file.stages.len()];
    needed[target] = true;
    let mut nodes = Vec::new();
    let mut missing: Vec<ImageNeed> = Vec::new();
    let mut failures = Vec::new();
    let (mut count, mut bytes) = (0, 0);
    for source in (0..=target).rev() {
        if !needed[source] {
            continue;
        }
        match visit(file, options, known, &global, source) {
            Ok((node, needs)) => {
                let mut mark = |stage: usize| needed[stage] = true;
                if let NodeBase::Stage(stage) = node.base {
                    mark(stage);
                }
                node.reads.iter().copied().for_each(&mut mark);
                count += node.instructions.len();
                bytes += node.instructions.iter().map(|spanned| spanned.text.len()).sum::<usize>();
                if count > MAX_INSTRUCTIONS || bytes > MAX_INSTRUCTION_BYTES {
                    let message = "the stages have too many instructions, triggers included";
                    let problem = Problem::too_much(message.to_owned());
                    return Err(fail((problem, file.stages[source].lines)));
                }
                missing.extend(needs.into_iter().filter(|need| !has(known, need)));
                nodes.push(node);
            }
            Err(problem) => failures.push(file.source.failure(problem.0, problem.1)),
        }
    }
    if !failures.is_empty() {
        failures.reverse();
        return Err(failures);
    }
    nodes.reverse();
    missing.sort();
    missing.dedup_by(|a, b| a.reference == b.reference && a.platform == b.platform);
    for need in missing.iter_mut().take(MAX_SUGGESTIONS) {
        need.hint = near_stage(file, need);
    }
    let positions: BTreeMap<usize, usize> =
        nodes.iter().enumerate().map(|(at, node)| (node.source, at)).collect();
    // A stage built from another one has its platform, whatever its own FROM says.
    for at in 0..nodes.len() {
        if let NodeBase::Stage(base) = nodes[at].base
            && let Some(base) = positions.get(&base)
        {
            nodes[at].platform = nodes[*base].platform.clone();
        }
    }
    Ok(Graph { global, stages: nodes, positions, missing })
}

fn has(known: &ImageFacts, need: &ImageNeed) -> bool {
    known.contains_key(&(need.reference.clone(), need.platform.clone()))
}

fn find_target(file: &Dockerfile, options: &Options) -> Result<usize, (Problem, LineRange)> {
    let Some(target) = &options.target else { return Ok(file.stages.len() - 1) };
    let lower = target.to_ascii_lowercase();
    let found = file.stages.iter().rposition(|stage| stage.name.as_deref() == Some(&lower));
    found.ok_or_else(|| {
        let names: Vec<&str> =
            file.stages.iter().filter_map(|stage| stage.name.as_deref()).collect();
        let problem =
            Problem::new("unknown-target", format!("target stage {target:?} could not be found"));
        let problem = match (nearest(&lower, names.iter().copied()), names.is_empty()) {
            (Some(name), _) => problem.with_hint(format!("did you mean {name}?")),
            (None, false) => problem.with_hint(format!("the stages are: {}", names.join(", "))),
            (None, true) => {
                problem.with_hint("no stage has a name: give it one with FROM … AS name")
            }
        };
        (problem, file.stages[0].lines)
    })
}

fn visit(
    file: &Dockerfile,
    options: &Options,
    known: &ImageFacts,
    global: &Global<'_>,
    source: usize,
) -> Result<(Node, Vec<ImageNeed>), (Problem, LineRange)> {
    let stage = &file.stages[source];
    let at = |problem: Problem| (problem, stage.lines);
    if let Some(name) = &stage.name
        && let Some((name, context)) = find_context(options, name, &options.platform)
    {
        return Ok(replaced(options, known, source, (&name, context), stage.lines));
    }
    let image = global.expand(&stage.image).map_err(at)?;
    if image.trim().is_empty() {
        let message = format!("base name ({}) should not be blank", stage.image);
        return Err(at(Problem::new("blank-base", message)
            .with_hint("an ARG that FROM uses has to stand before the first FROM, with a default")
            .blaming(stage.image.as_str())));
    }
    let earlier = file.stages[..source]
        .iter()
        .rposition(|other| other.name.as_deref() == Some(image.as_str()));
    let platform = match earlier {
        Some(_) => options.platform.clone(),
        None => platform(stage.platform.as_deref(), options, global).map_err(at)?,
    };
    let mut needs = Vec::new();
    let context = find_context(options, &image, &platform).filter(|_| earlier.is_none());
    let (image, local) = match context {
        Some((name, NamedContext::Local(_))) => (image, Some(name)),
        Some((_, NamedContext::Image(other))) => (other.clone(), None),
        None => (image, None),
    };
    let (base, triggers) = match (earlier, local) {
        (Some(base), _) => (NodeBase::Stage(base), own_triggers(file, base)),
        (None, Some(name)) => (NodeBase::Context(name), Vec::new()),
        (None, None) if image == "scratch" => (NodeBase::Scratch, Vec::new()),
        (None, None) => {
            let need = ImageNeed {
                reference: image.clone(),
                platform: platform.clone(),
                lines: stage.lines,
                hint: None,
            };
            let fact = known.get(&(image.clone(), platform.clone()));
            let triggers = fact.and_then(|fact| fact.document.config.on_build.clone());
            needs.push(need);
            (NodeBase::Image(image), triggers.unwrap_or_default())
        }
    };
    let mut instructions = Vec::new();
    for text in triggers {
        instructions.push(trigger(file, &text, stage.lines).map_err(at)?);
    }
    instructions.extend(stage.instructions.iter().cloned());
    let mut reads = Vec::new();
    for spanned in &instructions {
        let at = |problem| (problem, spanned.lines);
        for (from, by_index) in sources(&spanned.instruction).map_err(at)? {
            match resolve_from(file, options, source, &from, by_index).map_err(at)? {
                From::Stage(stage) => reads.push(stage),
                From::Image(reference) => {
                    let (platform, lines) = (options.platform.clone(), spanned.lines);
                    needs.push(ImageNeed { reference, platform, lines, hint: None });
                }
                From::Context(_) | From::Scratch => {}
            }
        }
    }
    Ok((Node { source, base, platform, instructions, reads }, needs))
}

/// A stage whose place a named context takes: its commands vanish too.
fn replaced(
    options: &Options,
    known: &ImageFacts,
    source: usize,
    (name, context): (&String, &NamedContext),
    lines: LineRange,
) -> (Node, Vec<ImageNeed>) {
    let platform = options.platform.clone();
    let (base, needs) = match context {
        NamedContext::Local(_) => (NodeBase::Context(name.clone()), Vec::new()),
        NamedContext::Image(reference) if reference == "scratch" => (NodeBase::Scratch, Vec::new()),
        NamedContext::Image(reference) => {
            let (reference, platform) = (reference.clone(), platform.clone());
            let need = ImageNeed { reference: reference.clone(), platform, lines, hint: None };
            let needs = if has(known, &need) { Vec::new() } else { vec![need] };
            (NodeBase::Image(reference), needs)
        }
    };
    (Node { source, base, platform, instructions: Vec::new(), reads: Vec::new() }, needs)
}

/// The name under which a named context is looked up: lower case, without what Docker's short form
/// of a reference leaves out. `NAME::PLATFORM` is for one platform.
pub fn context_name(name: &str) -> String {
    if let Some((name, platform)) = name.split_once("::") {
        let platform = platform.to_ascii_lowercase();
        let known = platform.parse::<Platform>().map(|platform| platform.to_string());
        return format!("{}::{}", context_name(name), known.unwrap_or(platform));
    }
    let name = name.to_ascii_lowercase();
    let short =
        name.strip_prefix("docker.io/").map(|rest| rest.strip_prefix("library/").unwrap_or(rest));
    let name = short.unwrap_or(&name);
    name.strip_suffix(":latest").unwrap_or(name).to_owned()
}

/// The named context that a stage or an image's reference means, and its name: the one for this
/// platform, else the one for all.
pub(super) fn find_context<'a>(
    options: &'a Options,
    reference: &str,
    platform: &Platform,
) -> Option<(String, &'a NamedContext)> {
    if matches!(reference, "scratch" | "context") {
        return None;
    }
    let name = context_name(reference);
    let own = format!("{name}::{platform}");
    [own, name].into_iter().find_map(|name| Some((name.clone(), options.contexts.get(&name)?)))
}

/// What an instruction copies or mounts from, as written, and whether that may be an index.
fn sources(instruction: &Instruction) -> Result<Vec<(String, bool)>, Problem> {
    match instruction {
        Instruction::Copy(copy) => Ok(copy.from.iter().map(|from| (from.clone(), true)).collect()),
        Instruction::Run(run) => {
            let mut found = Vec::new();
            for mount in &run.mounts {
                found.extend(mounts::from_of(mount)?.map(|from| (from, false)));
            }
            Ok(found)
        }
        _ => Ok(Vec::new()),
    }
}

fn near_stage(file: &Dockerfile, need: &ImageNeed) -> Option<String> {
    let earlier = file.stages.iter().take_while(|stage| stage.lines.start < need.lines.start);
    let names = earlier.filter_map(|stage| stage.name.as_deref());
    nearest(&need.reference, names).map(|name| format!("did you mean the stage {name}?"))
}

fn platform(
    flag: Option<&str>,
    options: &Options,
    global: &Global<'_>,
) -> Result<Platform, Problem> {
    let Some(flag) = flag else { return Ok(options.platform.clone()) };
    let text = global.expand(flag)?;
    if text.is_empty() {
        let message = format!("empty platform value from expression {flag}");
        return Err(Problem::new("bad-platform", message).blaming(flag));
    }
    // The system alone: this is where the commands of the build run.
    if text.eq_ignore_ascii_case(&options.build_platform.os) {
        return Ok(options.build_platform.clone());
    }
    let platform: Platform = text.parse().map_err(|error| {
        Problem::new("bad-platform", format!("failed to parse platform: {error}")).blaming(flag)
    })?;
    Ok(platform)
}

/// The ONBUILD instructions of a stage of the same file.
fn own_triggers(file: &Dockerfile, stage: usize) -> Vec<String> {
    let instructions = file.stages[stage].instructions.iter();
    instructions
        .filter_map(|spanned| match &spanned.instruction {
            Instruction::OnBuild(text) => Some(text.clone()),
            _ => None,
        })
        .collect()
}

fn trigger(file: &Dockerfile, text: &str, lines: LineRange) -> Result<Spanned, Problem> {
    let bad =
        || Problem::new("bad-onbuild", format!("the base's ONBUILD {text:?} cannot be parsed"));
    let mut logical = read_trigger(text, file.source.escape).ok_or_else(bad)?;
    logical.lines = lines;
    let spanned = instruction::parse(&logical, file.source.escape).map_err(|problem| Problem {
        hint: Some(format!("it comes from the base's ONBUILD {text:?}")),
        word: None,
        ..problem
    })?;
    match spanned.instruction {
        Instruction::From { .. } | Instruction::OnBuild(_) | Instruction::Maintainer(_) => {
            Err(bad())
        }
        _ => Ok(spanned),
    }
}

/// Stage name, stage index where one may stand, named context, else image.
pub(crate) fn resolve_from(
    file: &Dockerfile,
    options: &Options,
    current: usize,
    from: &str,
    by_index: bool,
) -> Result<From, Problem> {
    if from.contains('$') {
        let message = "variable expansion is not supported for --from, define a new stage with FROM using ARG from global scope as a workaround";
        return Err(Problem::new("from-variable", message).blaming(from));
    }
    let lower = from.to_ascii_lowercase();
    let named = |stage: &crate::stages::Stage| stage.name.as_deref() == Some(lower.as_str());
    if let Some(stage) = file.stages[..current].iter().rposition(named) {
        return Ok(From::Stage(stage));
    }
    if file.stages[current..].iter().any(named) {
        let message =
            format!("cannot copy from stage {from:?}, it needs to be defined before current stage");
        return Err(Problem::new("stage-order", message).blaming(from));
    }
    if by_index && let Ok(index) = from.parse::<i64>() {
        if let Some(stage) = usize::try_from(index).ok().filter(|stage| *stage < current) {
            return Ok(From::Stage(stage));
        }
        let hint = format!("{current} stages stand before this one, counted from 0");
        let message = format!("invalid stage index {index}");
        return Err(Problem::new("unknown-stage", message).with_hint(hint).blaming(from));
    }
    Ok(match find_context(options, from, &options.platform) {
        _ if lower == "scratch" => From::Scratch,
        Some((name, NamedContext::Local(_))) => From::Context(name),
        Some((_, NamedContext::Image(reference))) => From::Image(reference.clone()),
        None => From::Image(from.to_owned()),
    })
}
