//! Looking the steps of a running stage up by what they read: a producer that was built again and
//! made the same costs nothing below it.

use std::collections::BTreeMap;

use api::worker::v1::{LookupRequest, LookupResponse};
use common::cache_key::content_key;
use common::image::Layer;
use common::plan::{Base, Step};
use common::{Digest, StageId};
use store::{ContentFacts, ContentFound};

use super::documents::StageDocument;
use super::{App, AppError};

impl App {
    /// Which steps need not run, from one on whose inputs are there.
    pub(crate) async fn look_up(
        &self,
        request: &LookupRequest,
    ) -> Result<LookupResponse, AppError> {
        let facts = self.count_stale("lookup", self.store.content_facts(request.lease).await)?;
        let document: StageDocument = serde_json::from_value(facts.plan.clone())?;
        let steps = &document.stage.steps;
        let Some(first) = steps.iter().position(|step| step.number == request.step) else {
            return Ok(LookupResponse::default());
        };
        let parent = self.content_parent(&facts, &document, first).await?;
        let keys = keys(&facts, &document, first, parent);
        let all: Vec<Digest> = keys.iter().map(|(_, key)| *key).collect();
        let records = if document.looks_up {
            self.store.find_layers(&facts.domain, &all).await?
        } else {
            BTreeMap::new()
        };
        let hits: Vec<(&Step, Layer)> =
            keys.iter().map_while(|(step, key)| Some((*step, records.get(key)?.clone()))).collect();
        let mut found = ContentFound::default();
        for (step, key) in &keys {
            if step.key != *key {
                found.keys.push((step.number, *key));
            }
        }
        found.hits =
            hits.iter().map(|(step, layer)| (step.number, step.key, layer.clone())).collect();
        if hits.len() == steps.len() - first
            && let (Some((_, last)), false) = (keys.last(), facts.make_slices.is_empty())
        {
            found.slices = Some((document.stage.key, *last, facts.make_slices.clone()));
        }
        if found.keys.is_empty() && found.hits.is_empty() {
            return Ok(LookupResponse::default());
        }
        let saved = self.store.save_found(request.lease, &found).await;
        let slices = self.count_stale("lookup", saved)?;
        self.metrics.content_hits_total.inc_by(hits.len() as u64);
        self.bus.send(logbus::Message::Workers);
        Ok(LookupResponse { layers: hits.into_iter().map(|(_, layer)| layer).collect(), slices })
    }

    /// The content key of what a step follows.
    async fn content_parent(
        &self,
        facts: &ContentFacts,
        document: &StageDocument,
        first: usize,
    ) -> Result<Digest, AppError> {
        let before = first.checked_sub(1).and_then(|before| document.stage.steps.get(before));
        let key = match (before, &document.stage.base) {
            (Some(step), _) => match facts.known.get(&step.number) {
                Some(known) => return Ok(*known),
                None => step.key,
            },
            (None, Base::Stage(base)) => {
                // Its layers may not be stored yet.
                let id = document.stage_ids.iter().find(|(index, _)| index == base);
                if let Some((_, id)) = id
                    && let Some(key) = self.store.last_content_key(*id).await?
                {
                    return Ok(key);
                }
                match key_of(document, *base) {
                    Some(key) => key,
                    None => return Ok(document.stage.key),
                }
            }
            // The first step names what it starts from.
            (None, Base::Scratch | Base::Image(_)) => return Ok(first_parent(document)),
        };
        Ok(self.store.content_key_of(&facts.domain, &key).await?.unwrap_or(key))
    }
}

fn key_of(document: &StageDocument, stage: common::plan::StageIndex) -> Option<Digest> {
    document.input_keys.iter().find(|(index, _)| *index == stage).map(|(_, key)| *key)
}

/// What the first step's key says it follows.
fn first_parent(document: &StageDocument) -> Digest {
    let parts = document.stage.steps.first().map(|step| step.key_parts.as_slice());
    let parent =
        parts.unwrap_or_default().iter().find(|part| part.name == common::cache_key::PARENT);
    parent.and_then(|part| part.value.parse().ok()).unwrap_or(document.stage.key)
}

/// The content keys of the steps from `first` on, as far as it is known what they read.
fn keys<'a>(
    facts: &ContentFacts,
    document: &'a StageDocument,
    first: usize,
    parent: Digest,
) -> Vec<(&'a Step, Digest)> {
    let mut parent = parent;
    let mut keys = Vec::new();
    for step in &document.stage.steps[first..] {
        let Some(inputs) = inputs(facts, document, step) else { break };
        let key = content_key(&parent, &step.key_parts, &inputs);
        keys.push((step, key));
        parent = key;
    }
    keys
}

/// What a step reads of other stages, by content; none while some of it is not there.
fn inputs(
    facts: &ContentFacts,
    document: &StageDocument,
    step: &Step,
) -> Option<Vec<(Digest, String)>> {
    let mut inputs: Vec<(Digest, String)> = Vec::new();
    for (producer, selector) in step.input_slices() {
        let id: StageId = document.stage_ids.iter().find(|(index, _)| *index == producer)?.1;
        let selector = selector.digest().to_string();
        let content = facts.slices.get(&(id, selector.clone()))?;
        let text = format!("{selector} {content}");
        let key = key_of(document, producer)?;
        match inputs.iter_mut().find(|(known, _)| *known == key) {
            Some((_, known)) => {
                known.push(' ');
                known.push_str(&text);
            }
            None => inputs.push((key, text)),
        }
    }
    Some(inputs)
}
