//! `slipway workers`.

use std::process::ExitCode;

use client::public::Client;

use crate::exit::CliError;
use crate::output::print;

pub(crate) async fn run(client: &Client) -> Result<ExitCode, CliError> {
    let workers = client.workers().await?;
    if workers.is_empty() {
        print("no workers: start one with slipway-worker run");
    }
    for worker in workers {
        let slots = format!("{}/{} slots used", worker.used_slots, worker.slots);
        let platforms = worker.platforms.join(",");
        print(&format!(
            "{:20}  {:8}  {slots}  {platforms}  {}",
            worker.name, worker.state, worker.version
        ));
    }
    Ok(ExitCode::SUCCESS)
}
