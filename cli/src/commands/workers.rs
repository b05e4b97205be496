//! `slipway workers`.

use std::fmt::Write as _;
use std::process::ExitCode;

use client::public::Client;

use crate::exit::CliError;
use crate::output::{bytes, print};

pub(crate) async fn run(client: &Client) -> Result<ExitCode, CliError> {
    let workers = client.workers().await?;
    if workers.is_empty() {
        print("no workers: start one with slipway-worker run");
    }
    for worker in workers {
        let slots = format!("{}/{} slots used", worker.used_slots, worker.slots);
        let platforms = worker.platforms.join(",");
        let mut line = format!(
            "{:20}  {:8}  {slots}  {platforms}  {}",
            worker.name, worker.state, worker.version
        );
        if worker.cpu_millis > 0 {
            let (whole, rest) = (worker.cpu_millis / 1000, worker.cpu_millis % 1000 / 100);
            let _ = write!(line, "  {whole}.{rest} CPUs");
        }
        if worker.memory_bytes > 0 {
            let _ = write!(line, "  {}", bytes(worker.memory_bytes));
        }
        if !worker.labels.is_empty() {
            let _ = write!(line, "  {}", worker.labels.join(","));
        }
        if let Some(reason) = &worker.idle_because {
            let _ = write!(line, "  ({reason})");
        }
        print(&line);
    }
    Ok(ExitCode::SUCCESS)
}
