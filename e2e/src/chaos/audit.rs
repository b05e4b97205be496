//! Whether anything was broken: what has to hold when all builds have ended.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::Context as _;
use common::Digest;

use crate::Farm;

/// How long leases may still be held when the builds have ended: layers are on their way.
const QUIET_LIMIT: Duration = Duration::from_mins(1);

/// Queries that have to give nothing, and what it means if they do.
const LAWS: [(&str, &str); 9] = [
    (
        "a build has not ended",
        "select id, state from build where state in ('queued', 'planning', 'running')",
    ),
    (
        "a stage still waits, or is held",
        "select id, state from stage where state in ('waiting', 'ready', 'running', 'parked')",
    ),
    (
        "a stage came to more than one result",
        "select stage_id, count(*) from attempt where outcome = 'succeeded'
         group by stage_id having count(*) > 1",
    ),
    (
        "a stage succeeded without a run",
        "select s.id from stage s where s.state = 'succeeded' and s.attached_to is null
         and s.worker_id is not null and not exists (
             select 1 from attempt a where a.stage_id = s.id and a.outcome = 'succeeded')",
    ),
    (
        "a stage succeeded under an old lease",
        "select s.id from stage s join attempt a on a.stage_id = s.id and a.outcome = 'succeeded'
         where a.epoch <> s.epoch or s.state not in ('succeeded', 'cancelled')",
    ),
    (
        "a build succeeded and something that it was to make has not",
        "select s.id, s.state from stage s join build b on b.id = s.build_id
         where b.state = 'succeeded' and s.goal and s.state not in ('succeeded', 'cached')",
    ),
    (
        "a build failed and does not say why",
        "select id from build where state = 'failed' and failure is null",
    ),
    (
        "a record of the cache names an object that is not there",
        "select c.key from cache_record c where c.layer->'origin'->>'kind' = 'farm'
         and not exists (select 1 from object o where o.project = c.project and o.kind = 'blob'
                         and o.digest = c.layer->>'blob' and o.present)
         union all
         select c.stage_key from cache_slice c where not exists (
             select 1 from object o where o.project = c.project and o.kind = 'manifest'
             and o.digest = c.manifest and o.present)",
    ),
    (
        "a live worker lacks slots",
        "select name, slots, free_slots from worker
         where not lost and not draining and slots <> free_slots",
    ),
];

impl Farm {
    /// Waits until nothing runs, then lists everything that is not as it should be.
    pub fn audit(&self) -> anyhow::Result<Vec<String>> {
        let held = "select count(*) from stage where state in ('waiting', 'ready', 'running', \
                    'parked') union all select count(*) from worker \
                    where not lost and not draining and slots <> free_slots";
        // What is still held then is found by the laws.
        let _ = testkit::wait_for("the end of all leases", QUIET_LIMIT, || {
            let counts = self.query(held).ok()?;
            counts.lines().all(|count| count.trim() == "0").then_some(())
        });
        let mut wrong = Vec::new();
        for (law, sql) in LAWS {
            for row in self.query(sql)?.lines().filter(|line| !line.trim().is_empty()) {
                wrong.push(format!("{law}: {row}"));
            }
        }
        self.audit_objects(&mut wrong)?;
        self.audit_images(&mut wrong)?;
        Ok(wrong)
    }

    /// Each object that is said to be there has the bytes that its name promises.
    fn audit_objects(&self, wrong: &mut Vec<String>) -> anyhow::Result<()> {
        let files = self.stored_objects()?;
        let sql = "select project || '/' || kind || 's/sha256/' || replace(digest, 'sha256:', '') \
                   from object where present";
        let listed = self.query(sql)?;
        let chunks = self.query("select object from log_chunk")?;
        for name in listed.lines().chain(chunks.lines()).filter(|name| !name.is_empty()) {
            let Some(path) = files.get(name) else {
                wrong.push(format!("an object is missing: {name}"));
                continue;
            };
            let Some((_, hex)) = name.rsplit_once("sha256/") else { continue };
            let digest = Digest::of(&std::fs::read(path)?);
            if digest.hex() != hex {
                wrong.push(format!("an object has other bytes: {name}"));
            }
        }
        Ok(())
    }

    /// The S3 server's objects with the files that hold them.
    pub fn stored_objects(&self) -> anyhow::Result<BTreeMap<String, std::path::PathBuf>> {
        let mut files = BTreeMap::new();
        let bucket = self.directory().join("s3/slipway");
        for group in std::fs::read_dir(&bucket)?.flatten().filter(|entry| entry.path().is_dir()) {
            for entry in std::fs::read_dir(group.path())?.flatten() {
                let path = entry.path();
                if path.extension().is_none_or(|extension| extension != "json") {
                    continue;
                }
                let text: serde_json::Value = serde_json::from_slice(&std::fs::read(&path)?)?;
                let name = text["key"].as_str().context("an object without a name")?;
                let content = text["content"].as_str().context("an object without content")?;
                files.insert(name.to_owned(), path.with_file_name(content));
            }
        }
        Ok(files)
    }

    /// Each image that was pushed can be pulled, with all its layers.
    fn audit_images(&self, wrong: &mut Vec<String>) -> anyhow::Result<()> {
        let sql = "select distinct jsonb_array_elements_text(names) || '@' || digest \
                   from export_result e join stage s on s.id = e.stage_id \
                   where e.kind = 'image' and s.state = 'succeeded'";
        for row in self.query(sql)?.lines().filter(|row| row.contains('@')) {
            let Some((name, digest)) = row.split_once('@') else { continue };
            // Without its tag: a newer build may have moved that.
            let repository = name.rsplit_once(':').map_or(name, |(repository, _)| repository);
            let target = tempfile::tempdir_in(self.directory())?;
            if let Err(error) = pull(&format!("{repository}@{digest}"), target.path()) {
                wrong.push(format!("an image cannot be pulled: {name}@{digest}: {error}"));
            }
        }
        Ok(())
    }
}

/// Pulls an image; skopeo compares all digests.
fn pull(reference: &str, target: &Path) -> anyhow::Result<()> {
    let output = Command::new("skopeo")
        .args(["copy", "--quiet", "--src-tls-verify=false"])
        .arg(format!("docker://{reference}"))
        .arg(format!("dir:{}", target.display()))
        .output()?;
    anyhow::ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
