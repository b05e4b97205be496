//! The table of a build's stages.

use api::public::v1::{BuildView, StageView};
use common::stage::{StageKind, StageState};

/// A length in bytes for people.
pub(crate) fn bytes(count: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
    let value = count as f64;
    match count {
        0..1_000 => format!("{count} B"),
        1_000..1_000_000 => format!("{:.1} kB", value / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", value / 1e6),
        _ => format!("{:.2} GB", value / 1e9),
    }
}

/// A time for people.
pub(crate) fn duration(millis: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
    let seconds = millis as f64 / 1e3;
    if millis < 60_000 {
        format!("{seconds:.1}s")
    } else {
        format!("{}m{:02}s", millis / 60_000, millis / 1000 % 60)
    }
}

/// One row a stage: who ran it, where the time went, what went through the object store for it.
pub(crate) fn table(view: &BuildView) -> String {
    let mut rows = vec![
        [
            "STAGE",
            "STATE",
            "WORKER",
            "QUEUED",
            "WAITED",
            "FETCH",
            "RUN",
            "UPLOAD",
            "BYTES THROUGH S3",
        ]
        .map(str::to_owned),
    ];
    // Of a build that has succeeded without it, an export only tells a digest.
    let is_later = |stage: &&StageView| {
        view.state.is_terminal() && stage.kind == StageKind::Export && !stage.state.is_terminal()
    };
    rows.extend(view.stages.iter().filter(|stage| !is_later(stage)).map(row));
    let mut widths = [0; 9];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let lines = rows.iter().map(|row| {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    });
    lines.collect::<Vec<_>>().join("\n")
}

fn row(stage: &StageView) -> [String; 9] {
    let ran = stage.attempts > 0;
    let time = |millis| if ran { duration(millis) } else { "-".to_owned() };
    let through: u64 = stage.uploaded_bytes
        + stage.transfers.iter().map(|used| used.transferred_bytes).sum::<u64>();
    let state = match stage.state {
        StageState::Succeeded if stage.attempts > 1 => {
            format!("succeeded, {} tries", stage.attempts)
        }
        StageState::Running | StageState::Attached if stage.is_done => "done, storing".to_owned(),
        state => state.to_string(),
    };
    [
        stage.label.clone(),
        state,
        stage.worker.clone().unwrap_or_else(|| "-".to_owned()),
        time(stage.timing.queue_millis),
        time(stage.timing.parked_millis),
        time(stage.timing.fetch_millis),
        time(stage.timing.run_millis),
        time(stage.timing.upload_millis),
        if ran { bytes(through) } else { "-".to_owned() },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times_are_short() {
        for (count, expected) in
            [(0, "0 B"), (999, "999 B"), (1_500, "1.5 kB"), (2_000_000, "2.0 MB")]
        {
            assert_eq!(bytes(count), expected);
        }
        assert_eq!(duration(1_240), "1.2s");
        assert_eq!(duration(61_000), "1m01s");
    }
}
