//! Storing a plan, and reading back what a worker needs of it.

use common::cache_key::KeyPart;
use common::image::Layer;
use common::outcome::LineRange;
use common::plan::SliceSelector;
use common::stage::{StageKind, StageState};
use common::{BuildId, Digest, Domain, Platform, StageId};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::cache::CachedSlice;
use crate::flight::{Leader, attach, find_leaders};
use crate::object::renew_objects_of;
use crate::{Result, Store, StoreError, bigint, int, write};

/// A stage to store.
#[derive(Debug, Clone)]
pub struct NewStage {
    /// Its id.
    pub id: StageId,
    /// Stage or export.
    pub kind: StageKind,
    /// Name for people.
    pub label: String,
    /// `Waiting`, `Ready`, `Cached` or `Skipped`.
    pub state: StageState,
    /// What it needs of a worker.
    pub platform: Platform,
    /// Stages after it on the longest path.
    pub depth: u32,
    /// Bases that are not there yet.
    pub bases_missing: u32,
    /// What it is, as the coordinator wants it back.
    pub plan: Value,
    /// First step to run.
    pub first_step: u32,
    /// Layers below that step, where they are known.
    pub base_layers: Option<Vec<Layer>>,
    /// Slices to make.
    pub make_slices: Vec<SliceSelector>,
    /// Layers of a cached stage.
    pub layers: Option<Vec<Layer>>,
    /// Slices that were found for it.
    pub slices: Vec<CachedSlice>,
    /// Its steps.
    pub steps: Vec<NewStep>,
    /// What the scheduler looks at.
    pub placing: Placing,
    /// Its key, where others may share its run.
    pub key: Option<Digest>,
    /// Whether it may share the run of another one with this key.
    pub may_attach: bool,
    /// Whether the build ends only after it.
    pub is_goal: bool,
}

/// What the scheduler looks at, beside the platform.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Placing {
    /// Of its build; higher goes first.
    pub priority: i16,
    /// Predicted milliseconds from its start to the end of the build.
    pub critical_millis: u64,
    /// What its history is kept under.
    pub lineage: Option<String>,
    /// Labels that its worker has to have.
    pub labels: Vec<String>,
    /// Declared processor time in thousandths.
    pub cpu_millis: u32,
    /// Declared memory.
    pub memory_bytes: u64,
    /// [`crate::chain_of`] what it starts from, where that is known.
    pub base_chain: Option<String>,
    /// Bytes of that.
    pub base_bytes: u64,
    /// Longest time on a worker in seconds.
    pub timeout_secs: Option<u32>,
}

/// A step to store.
#[derive(Debug, Clone)]
pub struct NewStep {
    /// Its number.
    pub number: u32,
    /// The instruction.
    pub display: String,
    /// Where it stands.
    pub lines: LineRange,
    /// Its key.
    pub key: Digest,
    /// What the key is made of.
    pub key_parts: Vec<KeyPart>,
    /// Whether it was found in the cache.
    pub cached: bool,
}

/// Who reads whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewEdge {
    /// The reader.
    pub consumer: StageId,
    /// What is read.
    pub producer: StageId,
    /// FROM, or a copy.
    pub is_base: bool,
}

/// A plan to store.
#[derive(Debug, Clone)]
pub struct NewPlan {
    /// Digest of the context's manifest.
    pub context: Option<Digest>,
    /// Digests of the manifests of all contexts.
    pub inputs: Vec<Digest>,
    /// Stages and exports, producers first.
    pub stages: Vec<NewStage>,
    /// Edges.
    pub edges: Vec<NewEdge>,
    /// Notices.
    pub warnings: Vec<String>,
    /// Keys of steps that are to run because the cache did not have them: if it has one now, the
    /// plan is old.
    pub first_keys: Vec<Digest>,
}

impl Store {
    /// Stores a plan: the build runs from now on. If everything is there already, it has succeeded.
    /// Stages that run already are attached to those that run; the answer is how many.
    /// [`StoreError::PlanIsOld`]: the cache has changed meanwhile, plan again.
    pub async fn save_plan(
        &self,
        build: BuildId,
        domain: &Domain,
        planner: Uuid,
        plan: &NewPlan,
    ) -> Result<usize> {
        let mut transaction = self.begin().await?;
        let warnings = write("warnings", &plan.warnings)?;
        let inputs: Vec<String> = plan.inputs.iter().map(Digest::to_string).collect();
        let done = sqlx::query!(
            r#"update build set state = 'running', warnings = $3, context = $4, inputs = $5
               where id = $1 and state = 'planning' and planner = $2"#,
            build.0,
            planner,
            warnings,
            plan.context.map(|digest| digest.to_string()),
            &inputs,
        )
        .execute(&mut *transaction)
        .await?;
        if done.rows_affected() != 1 {
            return Err(StoreError::WrongState("build"));
        }
        let mut leaders = find_leaders(&mut transaction, domain, plan).await?;
        let led: Vec<Option<Leader>> = plan.stages.iter().map(|stage| leaders.of(stage)).collect();
        insert_stages(&mut transaction, (build, domain), plan, &led).await?;
        let mut attached = 0;
        for (stage, leader) in plan.stages.iter().zip(&led) {
            for slice in &stage.slices {
                insert_slice(&mut transaction, stage.id, slice).await?;
            }
            if let Some(leader) = leader {
                attach(&mut transaction, stage, *leader).await?;
                attached += 1;
            }
        }
        if attached > 0 || refers_to_objects(plan) {
            // What the cache was found to have may have gone since.
            let missing = renew_objects_of(&mut transaction, build.0).await?;
            if !missing.is_empty() {
                transaction.rollback().await?;
                self.forget_broken(domain.project.as_str(), &missing).await?;
                return Err(StoreError::PlanIsOld);
            }
        }
        if is_done(plan, &led) {
            crate::finish::end_build_if_done(&mut transaction, build.0).await?;
        }
        transaction.commit().await?;
        Ok(attached)
    }
}

/// Whether a plan may need something that the farm holds.
fn refers_to_objects(plan: &NewPlan) -> bool {
    let holds = |layers: &Option<Vec<Layer>>| layers.as_ref().is_some_and(|all| !all.is_empty());
    let is_found = |stage: &NewStage| {
        !stage.slices.is_empty() || holds(&stage.layers) || holds(&stage.base_layers)
    };
    !plan.inputs.is_empty() || plan.stages.iter().any(is_found)
}

/// Whether nothing is left to do for a build with this plan.
fn is_done(plan: &NewPlan, led: &[Option<Leader>]) -> bool {
    let mut goals = plan.stages.iter().zip(led).filter(|(stage, _)| stage.is_goal);
    goals.all(|(stage, leader)| {
        stage.state == StageState::Cached || leader.is_some_and(|leader| leader.is_done)
    })
}

/// Stores stages with their details, steps and edges, in one statement: plans may be large, and from
/// when a stage is ready nothing is to stand between it and a worker.
async fn insert_stages(
    connection: &mut sqlx::PgConnection,
    (build, domain): (BuildId, &Domain),
    plan: &NewPlan,
    led: &[Option<Leader>],
) -> Result<()> {
    let stages = &plan.stages;
    let rows = stages.iter().zip(led).enumerate();
    let rows: Vec<Value> =
        rows.map(|(position, (stage, leader))| stage_row(position, stage, *leader)).collect();
    let details: Vec<Value> = stages.iter().map(detail_row).collect::<Result<_>>()?;
    let steps = stages.iter().flat_map(|stage| stage.steps.iter().map(|step| (stage.id, step)));
    let steps: Vec<Value> =
        steps.map(|(stage, step)| step_row(stage, step)).collect::<Result<_>>()?;
    let consumers: Vec<Uuid> = plan.edges.iter().map(|edge| edge.consumer.0).collect();
    let producers: Vec<Uuid> = plan.edges.iter().map(|edge| edge.producer.0).collect();
    let are_bases: Vec<bool> = plan.edges.iter().map(|edge| edge.is_base).collect();
    sqlx::query!(
        r#"with stages as (
               insert into stage (id, build_id, project, position, kind, state, platform, depth,
                                  bases_missing, priority, critical_millis, labels, cpu_millis,
                                  memory_bytes, base_chain, base_bytes, timeout_secs, key,
                                  attached_to, goal, ready_at, ended_at, done_at, untrusted)
               select id, $1, $2, position, kind, state, platform, depth, bases_missing, priority,
                      critical_millis, labels, cpu_millis, memory_bytes, base_chain, base_bytes,
                      timeout_secs, key, attached_to, goal,
                      case when state in ('ready', 'attached') then clock_timestamp() end,
                      case when state in ('cached', 'skipped') then now() end,
                      case when is_done then now() end, $9
               from jsonb_to_recordset($3) as r(
                      id uuid, position int, kind text, state text, platform text, depth int,
                      bases_missing int, priority smallint, critical_millis bigint, labels text[],
                      cpu_millis int, memory_bytes bigint, base_chain text, base_bytes bigint,
                      timeout_secs int, key text, attached_to uuid, goal bool, is_done bool)),
           details as (
               insert into stage_detail (stage_id, label, plan, first_step, base_layers,
                                         make_slices, layers, lineage)
               select id, label, plan, first_step, base_layers, make_slices, layers, lineage
               from jsonb_to_recordset($4) as r(
                      id uuid, label text, plan jsonb, first_step int, base_layers jsonb,
                      make_slices jsonb, layers jsonb, lineage text)),
           edges as (
               insert into stage_edge (consumer, producer, is_base)
               select consumer, producer, bool_or(is_base)
               from unnest($6::uuid[], $7::uuid[], $8::bool[]) e(consumer, producer, is_base)
               group by consumer, producer)
           insert into step (stage_id, number, display, line_start, line_end, key, key_parts, state)
           select stage, number, display, line_start, line_end, key, key_parts, state
           from jsonb_to_recordset($5) as r(
                  stage uuid, number int, display text, line_start int, line_end int, key text,
                  key_parts jsonb, state text)"#,
        build.0,
        domain.project.as_str(),
        Value::Array(rows),
        Value::Array(details),
        Value::Array(steps),
        &consumers,
        &producers,
        &are_bases,
        domain.trust.is_untrusted(),
    )
    .execute(connection)
    .await?;
    Ok(())
}

fn stage_row(position: usize, stage: &NewStage, leader: Option<Leader>) -> Value {
    let state = leader.map_or(stage.state, |_| StageState::Attached);
    let placing = &stage.placing;
    json!({
        "id": stage.id.0,
        "position": int(position),
        "kind": stage.kind.as_str(),
        "state": state.as_str(),
        "platform": stage.platform.to_string(),
        "depth": int(stage.depth),
        "bases_missing": int(stage.bases_missing),
        "priority": placing.priority,
        "critical_millis": bigint(placing.critical_millis),
        "labels": placing.labels,
        "cpu_millis": int(placing.cpu_millis),
        "memory_bytes": bigint(placing.memory_bytes),
        "base_chain": placing.base_chain,
        "base_bytes": bigint(placing.base_bytes),
        "timeout_secs": placing.timeout_secs.map(int),
        "key": stage.key.map(|key| key.to_string()),
        "attached_to": leader.map(|leader| leader.id),
        "goal": stage.is_goal,
        "is_done": leader.is_some_and(|leader| leader.is_done),
    })
}

fn detail_row(stage: &NewStage) -> Result<Value> {
    Ok(json!({
        "id": stage.id.0,
        "label": stage.label,
        "plan": stage.plan,
        "first_step": int(stage.first_step),
        "base_layers": stage.base_layers.as_ref().map(|all| write("layers", all)).transpose()?,
        "make_slices": write("slices", &stage.make_slices)?,
        "layers": stage.layers.as_ref().map(|all| write("layers", all)).transpose()?,
        "lineage": stage.placing.lineage,
    }))
}

fn step_row(stage: StageId, step: &NewStep) -> Result<Value> {
    Ok(json!({
        "stage": stage.0,
        "number": int(step.number),
        "display": step.display,
        "line_start": int(step.lines.start),
        "line_end": int(step.lines.end),
        "key": step.key.to_string(),
        "key_parts": write("key", &step.key_parts)?,
        "state": if step.cached { "cached" } else { "pending" },
    }))
}

/// Records a slice of a stage; the same one twice is fine.
pub(crate) async fn insert_slice(
    connection: &mut sqlx::PgConnection,
    stage: StageId,
    slice: &CachedSlice,
) -> Result<()> {
    sqlx::query!(
        r#"insert into stage_slice (stage_id, selector, paths, manifest, inline_manifest, files,
                                    content_bytes, stored_bytes, content)
           values ($1, $2, $3, $4, $5, $6, $7, $8, $9) on conflict do nothing"#,
        stage.0,
        slice.selector.digest().to_string(),
        write("slice", &slice.selector.patterns())?,
        slice.manifest.to_string(),
        slice.inline_manifest,
        bigint(slice.files),
        bigint(slice.content_bytes),
        bigint(slice.stored_bytes),
        slice.content.map(|digest| digest.to_string()),
    )
    .execute(connection)
    .await?;
    Ok(())
}
