//! `slipway builds`.

use std::process::ExitCode;

use client::public::Client;

use crate::exit::CliError;
use crate::output::print;

pub(crate) async fn run(client: &Client) -> Result<ExitCode, CliError> {
    let page = client.builds().await?;
    if page.builds.is_empty() {
        print("no builds yet: slipway build . makes one");
    }
    for build in page.builds {
        let target = build.target.unwrap_or_else(|| "-".to_owned());
        print(&format!("{}  {:10}  {:12}  {}", build.id, build.state, target, build.dockerfile));
    }
    Ok(ExitCode::SUCCESS)
}
