//! A past: a database in which much has been built.

use anyhow::Context as _;
use e2e::Farm;

/// Stages of one build of the past.
const STAGES: usize = 100;

/// Multiplies a stage that has ended until there are so many: with its steps, attempts and details,
/// in builds of a hundred.
pub(super) fn fill(farm: &Farm, stages: usize) -> anyhow::Result<()> {
    let template = farm.query(
        "select s.id, s.build_id from stage s join build b on b.id = s.build_id
         where s.state = 'succeeded' and b.state = 'succeeded' limit 1",
    )?;
    let (stage, build) = template.trim().split_once('|').context("nothing has succeeded yet")?;
    let builds = stages / STAGES;
    let copies = [
        "create table past_build as select gen_random_uuid() as id from generate_series(1, {builds})".to_owned(),
        "create table past_stage as select b.id as build, gen_random_uuid() as id, n as position
         from past_build b, generate_series(1, {stages}) n".to_owned(),
        copy("build", "past_build p", "id = '{build}'", "'id', p.id, 'request_key', p.id"),
        copy("stage", "past_stage p", "id = '{stage}'", "'id', p.id, 'build_id', p.build, 'position', p.position"),
        copy("stage_detail", "past_stage p", "stage_id = '{stage}'", "'stage_id', p.id"),
        copy("step", "past_stage p", "stage_id = '{stage}'", "'stage_id', p.id, 'key', md5(p.id::text)"),
        copy("attempt", "past_stage p", "stage_id = '{stage}'", "'stage_id', p.id"),
        "drop table past_stage, past_build".to_owned(),
        "vacuum analyze".to_owned(),
    ];
    for statement in copies {
        let statement = statement
            .replace("{builds}", &builds.to_string())
            .replace("{stages}", &STAGES.to_string())
            .replace("{build}", build)
            .replace("{stage}", stage);
        farm.query(&statement)?;
    }
    Ok(())
}

/// Copies the rows of a table that meet a condition once for each row of `each`, with other values.
fn copy(table: &str, each: &str, condition: &str, values: &str) -> String {
    format!(
        "insert into {table}
         select r.* from {table} t, {each},
                lateral jsonb_populate_record(null::{table},
                                              to_jsonb(t) || jsonb_build_object({values})) r
         where t.{condition}"
    )
}
