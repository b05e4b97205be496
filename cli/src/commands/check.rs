//! `slipway build --check` and `--call`: a Dockerfile looked at, nothing built.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::process::ExitCode;

use api::public::v1::{BuildSource, CheckView, FindingView, OutlineView, TargetView};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use client::public::Client;
use common::outcome::LineRange;

use super::prepare::Prepared;
use crate::args::Build;
use crate::exit::CliError;
use crate::output::print;

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Call {
    /// What is unwise.
    Check { json: bool },
    /// What the target takes.
    Outline { json: bool },
    /// What can be built.
    Targets { json: bool },
}

/// `--check`, or `--call=check|outline|targets[,format=json]`; `build` is none.
pub(super) fn call(arguments: &Build) -> Result<Option<Call>, CliError> {
    let text = match (&arguments.call, arguments.check) {
        (None, false) => return Ok(None),
        (None, true) => "check",
        (Some(text), _) => text.as_str(),
    };
    let (name, options) = text.split_once(',').unwrap_or((text, ""));
    let json = match options {
        "" | "format=text" => false,
        "format=json" => true,
        other => return Err(CliError::usage(format!("--call {text}: unexpected {other:?}"))),
    };
    Ok(match name {
        "build" => None,
        "check" | "lint" => Some(Call::Check { json }),
        "outline" => Some(Call::Outline { json }),
        "targets" => Some(Call::Targets { json }),
        other => {
            let message = format!("--call {other}: build, check, outline or targets");
            return Err(CliError::usage(message));
        }
    })
}

/// Asks, and shows the answer. Findings of a check are a failure, as with `docker build --check`.
pub(super) async fn run(
    client: &Client,
    arguments: &Build,
    call: Call,
) -> Result<ExitCode, CliError> {
    let prepared = Prepared::load(client, arguments, BTreeMap::new()).await?;
    let (request, _) = prepared.request(Vec::new(), None, None).await?;
    let view = client.check(&request).await?;
    let json = |value: Result<String, serde_json::Error>| {
        value.map_err(|error| CliError::Farm(error.to_string()))
    };
    let is_check = matches!(call, Call::Check { .. });
    let text = match call {
        Call::Check { json: true } => json(serde_json::to_string_pretty(&view))?,
        Call::Check { json: false } => {
            let BuildSource::Context(source) = &request.source;
            let file = BASE64_STANDARD.decode(&source.dockerfile.content_base64);
            let file = String::from_utf8_lossy(&file.unwrap_or_default()).into_owned();
            findings(&source.dockerfile.name, &file, &view.findings)
        }
        Call::Targets { json: true } => json(serde_json::to_string_pretty(&view.targets))?,
        Call::Targets { json: false } => targets(&view.targets),
        Call::Outline { json: true } => json(serde_json::to_string_pretty(&view.outline))?,
        Call::Outline { json: false } => view.outline.as_ref().map(outline).unwrap_or_default(),
    };
    let CheckView { failure, findings, .. } = view;
    // What was found is shown also where the file cannot be planned.
    let shows =
        failure.is_none() || !matches!(call, Call::Check { json: false } if findings.is_empty());
    if shows && !text.is_empty() {
        print(text.trim_end());
    }
    match failure {
        // The list of targets needs no plan.
        Some(failure) if !matches!(call, Call::Targets { .. }) => {
            Err(CliError::Failed(Box::new(failure)))
        }
        _ if is_check && !findings.is_empty() => Ok(ExitCode::FAILURE),
        _ => Ok(ExitCode::SUCCESS),
    }
}

/// The findings as `docker build --check` shows them.
fn findings(name: &str, file: &str, findings: &[FindingView]) -> String {
    let lines: Vec<&str> = file.lines().collect();
    let mut text = match findings.len() {
        0 => return "Check complete, no warnings found.".to_owned(),
        1 => "Check complete, 1 warning has been found!\n".to_owned(),
        count => format!("Check complete, {count} warnings have been found!\n"),
    };
    for finding in findings {
        let FindingView { rule, url, description, message, lines: place, .. } = finding;
        let _ = write!(text, "\nWARNING: {rule} - {url}\n{description}\n");
        if message != description {
            let _ = writeln!(text, "{message}");
        }
        let _ = writeln!(text, "{name}:{}", place.start);
        text.push_str(&excerpt(&lines, *place));
    }
    text
}

/// The lines around a place, marked.
fn excerpt(lines: &[&str], place: LineRange) -> String {
    let rule = "--------------------\n";
    let first = place.start.saturating_sub(3);
    let last = (place.end as usize + 2).min(lines.len());
    let mut text = rule.to_owned();
    for (number, line) in lines.iter().enumerate().take(last).skip(first as usize) {
        let is_meant = (place.start as usize..=place.end as usize).contains(&(number + 1));
        let mark = if is_meant { ">>>" } else { "   " };
        let _ = writeln!(text, "{:4} | {mark} {line}", number + 1);
    }
    text.push_str(rule);
    text
}

fn targets(targets: &[TargetView]) -> String {
    let mut rows = vec![vec!["TARGET".to_owned(), "DESCRIPTION".to_owned()]];
    for target in targets {
        let name = target.name.clone().unwrap_or_default();
        let name = match (name.as_str(), target.is_default) {
            ("", false) => continue,
            ("", true) => "(default)".to_owned(),
            (name, true) => format!("{name} (default)"),
            (name, false) => name.to_owned(),
        };
        rows.push(vec![name, target.description.clone().unwrap_or_default()]);
    }
    columns(&rows)
}

fn outline(outline: &OutlineView) -> String {
    let mut text = String::new();
    if let Some(name) = &outline.name {
        let _ = writeln!(text, "TARGET:      {name}");
    }
    if let Some(description) = &outline.description {
        let _ = writeln!(text, "DESCRIPTION: {description}");
    }
    let head = |names: &[&str]| vec![names.iter().map(|name| (*name).to_owned()).collect()];
    let mut args: Vec<Vec<String>> = head(&["BUILD ARG", "VALUE", "DESCRIPTION"]);
    for arg in &outline.args {
        let or_empty = |text: &Option<String>| text.clone().unwrap_or_default();
        args.push(vec![arg.name.clone(), or_empty(&arg.value), or_empty(&arg.description)]);
    }
    let mut tables = vec![args];
    for (name, list) in
        [("SECRET", &outline.secrets), ("SSH", &outline.ssh), ("CACHE MOUNT", &outline.caches)]
    {
        let mut rows: Vec<Vec<String>> = head(&[name, "REQUIRED"]);
        for mount in list {
            let required = if mount.required { "true" } else { "" };
            rows.push(vec![mount.name.clone(), required.to_owned()]);
        }
        tables.push(rows);
    }
    for rows in tables.into_iter().filter(|rows| rows.len() > 1) {
        if !text.is_empty() {
            text.push('\n');
        }
        text.push_str(&columns(&rows));
    }
    text
}

fn columns(rows: &[Vec<String>]) -> String {
    let count = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max()
    };
    let widths: Vec<usize> = (0..count).map(|column| width(column).unwrap_or(0) + 4).collect();
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        let _ = writeln!(text, "{}", cells.collect::<String>().trim_end());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::public::v1::{OutlineArgView, OutlineMountView};

    const HERE: LineRange = LineRange { start: 3, end: 3 };

    #[test]
    fn findings_are_shown_in_their_place() {
        let finding = FindingView {
            rule: "JSONArgsRecommended".into(),
            description: "JSON arguments recommended".into(),
            url: "https://x.test/".into(),
            message: "JSON arguments recommended for CMD".into(),
            lines: HERE,
        };
        let text = findings("Dockerfile", "FROM alpine\nRUN a\nCMD b\n", &[finding]);
        let expected = "Check complete, 1 warning has been found!\n\n\
            WARNING: JSONArgsRecommended - https://x.test/\nJSON arguments recommended\n\
            JSON arguments recommended for CMD\nDockerfile:3\n--------------------\n   \
            1 |     FROM alpine\n   2 |     RUN a\n   3 | >>> CMD b\n--------------------\n";
        assert_eq!(text, expected);
        assert_eq!(findings("D", "", &[]), "Check complete, no warnings found.");
    }

    #[test]
    fn targets_and_outlines_are_tables() {
        let target = |name: Option<&str>, is_default| TargetView {
            name: name.map(str::to_owned),
            description: name.map(|name| format!("the {name}")),
            base: "alpine".into(),
            platform: None,
            is_default,
            lines: HERE,
        };
        let text =
            targets(&[target(Some("a"), false), target(None, false), target(Some("b"), true)]);
        assert_eq!(
            text,
            "TARGET         DESCRIPTION\na              the a\nb (default)    the b\n"
        );
        let mount =
            |name: &str, required| OutlineMountView { name: name.into(), required, lines: HERE };
        let view = OutlineView {
            name: Some("app".into()),
            args: vec![OutlineArgView {
                name: "V".into(),
                value: Some("1".into()),
                description: None,
                lines: HERE,
            }],
            secrets: vec![mount("tok", true)],
            ..OutlineView::default()
        };
        let expected = "TARGET:      app\n\nBUILD ARG    VALUE    DESCRIPTION\nV            1\n\n\
            SECRET    REQUIRED\ntok       true\n";
        assert_eq!(outline(&view), expected);
    }
}
