//! From the command line to a request whose files the farm has.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::sync::Arc;

use api::public::v1::{
    BuildRequest, ContextSource, DockerfileSource, NamedContextSource, OutputRequest,
};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use client::public::Client;
use common::tree::Manifest;
use common::{Failure, Platform, ProjectName};
use dockerfile::{Options, Paths, Reach, context_name};

use super::input::Input;
use super::needless::needless;
use super::options::{self, NamedContext};
use super::request::{platforms, request};
use super::source::Source;
use crate::args::Build;
use crate::context::{Sent, SentContext, ignore_file, is_sent_whole, send, send_whole};
use crate::exit::CliError;
use crate::layout;

/// What a build is made of, before it is sent.
pub(super) struct Prepared<'a> {
    client: &'a Client,
    arguments: &'a Build,
    project: ProjectName,
    input: Input,
    named: BTreeMap<String, NamedContext>,
    /// Named contexts that are results of other targets, by the targets' names.
    links: BTreeMap<String, String>,
    /// What is needed of the contexts; unknown is everything.
    reach: Option<Reach>,
    /// Whether images of every platform of a layout are sent.
    all_platforms: bool,
}

impl<'a> Prepared<'a> {
    /// Reads what the command line names.
    pub(super) async fn load(
        client: &'a Client,
        arguments: &'a Build,
        links: BTreeMap<String, String>,
    ) -> Result<Self, CliError> {
        if let Some((flag, why)) = arguments.later.first() {
            return Err(CliError::usage(format!("{flag} {why}")));
        }
        for warning in needless(arguments)? {
            let _ = writeln!(std::io::stderr(), "warning: {warning}");
        }
        let project: ProjectName = arguments
            .project
            .parse()
            .map_err(|error: common::ids::InvalidProjectName| CliError::usage(error.to_string()))?;
        let input = Input::load(arguments, std::io::stdin()).await?;
        let named = options::contexts(&arguments.build_context)?;
        let reach = if is_sent_whole(&input.dockerfile) {
            None
        } else {
            reach(arguments, &input, &named, &links)?
        };
        Ok(Self { client, arguments, project, input, named, links, reach, all_platforms: false })
    }

    /// Sends what the farm needs of the contexts, and makes the request. Without `what` nothing is
    /// sent of them; the main one may have been `sent` already.
    pub(super) async fn request(
        &self,
        outputs: Vec<OutputRequest>,
        what: Option<Sent>,
        sent: Option<SentContext>,
    ) -> Result<(BuildRequest, Option<SentContext>), CliError> {
        let input = &self.input;
        let sent = match (what, &input.context) {
            _ if sent.is_some() => sent,
            (Some(what), Some(context)) => {
                let everything = Paths::everything();
                let reached = self.reach.as_ref().map_or(&everything, Reach::main);
                let files = (context.as_path(), input.ignore.as_deref());
                Some(send(self.client, &self.project, files, reached, what).await?)
            }
            _ => None,
        };
        let mut contexts = BTreeMap::new();
        for (name, named) in &self.named {
            contexts.insert(name.clone(), self.named_source(name, named, what).await?);
        }
        for (name, target) in &self.links {
            contexts.insert(name.clone(), NamedContextSource::Target { name: target.clone() });
        }
        let source = ContextSource {
            manifest: sent.as_ref().map(|sent| sent.manifest),
            dockerfile: DockerfileSource {
                name: input.name.clone(),
                content_base64: BASE64_STANDARD.encode(&input.dockerfile),
            },
            made_at: input.made_at,
            ignore_base64: input.ignore.as_ref().map(|bytes| BASE64_STANDARD.encode(bytes)),
        };
        let request = request(self.arguments, self.project.clone(), source, outputs)?;
        Ok((BuildRequest { contexts, ..request }, sent))
    }

    async fn named_source(
        &self,
        name: &str,
        named: &NamedContext,
        what: Option<Sent>,
    ) -> Result<NamedContextSource, CliError> {
        let reached = match (&self.reach, what) {
            (_, None) => Paths::default(),
            (None, Some(_)) => Paths::everything(),
            (Some(reach), Some(_)) => reach.named(&context_name(name)),
        };
        let (client, project) = (self.client, &self.project);
        let what = what.unwrap_or(Sent::Manifest);
        Ok(match named {
            NamedContext::Image(reference) => {
                NamedContextSource::Image { reference: reference.clone() }
            }
            NamedContext::Directory(path) => {
                let ignore = ignore_file(path, None)?;
                let files = (path.as_path(), ignore.as_deref());
                let sent = send(client, project, files, &reached, what).await?;
                NamedContextSource::Files { manifest: sent.manifest, made_at: None }
            }
            NamedContext::Layout(source) => {
                let sends = what == Sent::Everything;
                let wanted = self.reach.as_ref().filter(|_| !self.all_platforms);
                let wanted = wanted.map(|reach| reach.platforms_of(&context_name(name)));
                let images = layout::send(client, project, source.clone(), wanted, sends).await?;
                NamedContextSource::Layout { images }
            }
            NamedContext::Elsewhere(address) => {
                let fetched = Source::new(&self.arguments.secret)?.named(address).await?;
                let files = (fetched.path.as_path(), None);
                let sent = send(client, project, files, &reached, what).await?;
                NamedContextSource::Files { manifest: sent.manifest, made_at: fetched.made_at }
            }
        })
    }

    /// Whether a failure says that whole contexts are needed; then they are sent so from now on.
    pub(super) fn learns_from(&mut self, failure: Option<&Failure>) -> bool {
        let is_layout = |named: &NamedContext| matches!(named, NamedContext::Layout(_));
        let lacks_image = failure.is_some_and(|failure| failure.code == "image-platform");
        if lacks_image && !self.all_platforms && self.named.values().any(is_layout) {
            // The farm may build for another platform than this machine's.
            self.all_platforms = true;
            return true;
        }
        let lacks = failure.is_some_and(|failure| failure.code == dockerfile::NOT_SENT);
        if !lacks || self.reach.is_none() {
            return false;
        }
        self.reach = None;
        send_whole(&self.input.dockerfile);
        true
    }

    /// Whether both have the same main context, which then can be sent once.
    pub(super) fn shares_context(&self, other: &Self) -> bool {
        self.input.context.is_some()
            && self.input.context == other.input.context
            && self.input.ignore == other.input.ignore
    }

    /// Lets targets of one build send the same of what they have in common: else their stages would
    /// read different contexts and could not be the same.
    pub(super) fn align(all: &mut [Self]) {
        let reaches: Vec<Option<Reach>> = all.iter().map(|one| one.reach.clone()).collect();
        for position in 0..all.len() {
            let mut common = all[position].reach.take();
            for (other, reach) in reaches.iter().enumerate() {
                let shares = all[position].shares_context(&all[other]);
                common = match (common, reach) {
                    (None, _) => None,
                    (Some(_), None) if shares => None,
                    (common, None) => common,
                    (Some(mut common), Some(reach)) => {
                        if shares {
                            common.add(reach.clone());
                        } else {
                            common.add_named(reach);
                        }
                        Some(common)
                    }
                };
            }
            all[position].reach = common;
        }
    }
}

/// What the instructions ask of the contexts; nothing where that cannot be told.
fn reach(
    arguments: &Build,
    input: &Input,
    named: &BTreeMap<String, NamedContext>,
    links: &BTreeMap<String, String>,
) -> Result<Option<Reach>, CliError> {
    let Ok(file) = dockerfile::parse(&input.name, &input.dockerfile) else { return Ok(None) };
    let context = |(name, context): (&String, &NamedContext)| {
        let context = match context {
            NamedContext::Directory(_) | NamedContext::Elsewhere(_) => {
                dockerfile::NamedContext::Local(Arc::new(Manifest::default()))
            }
            NamedContext::Image(reference) => dockerfile::NamedContext::Image(reference.clone()),
            NamedContext::Layout(_) => dockerfile::NamedContext::Image(context_name(name)),
        };
        (context_name(name), context)
    };
    let link = |(name, target): (&String, &String)| {
        (context_name(name), dockerfile::NamedContext::Image(format!("target://{target}")))
    };
    let time = input.made_at.map(|time| ("context".to_owned(), time));
    let options = Options {
        target: arguments.target.clone(),
        build_args: super::request::build_args(&arguments.build_arg),
        contexts: named.iter().map(context).chain(links.iter().map(link)).collect(),
        context_times: time.into_iter().collect(),
        ..Options::new(Platform::host())
    };
    let mut platforms = platforms(arguments)?;
    if platforms.is_empty() {
        platforms.push(Platform::host());
    }
    let mut all = Reach::default();
    for platform in platforms {
        match file.reach(&Options { platform, ..options.clone() }) {
            Some(reach) => all.add(reach),
            None => return Ok(None),
        }
    }
    Ok(Some(all))
}
