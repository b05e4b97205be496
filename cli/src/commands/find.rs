//! Builds by what people type.

use client::public::Client;
use common::BuildId;

use crate::exit::CliError;

/// The build with this id, beginning of an id, or the newest one for `last`.
pub(crate) async fn find(client: &Client, text: &str) -> Result<BuildId, CliError> {
    if let Ok(id) = text.parse() {
        return Ok(id);
    }
    let page = client.builds().await?;
    if text == "last" {
        let newest = page.builds.first().map(|build| build.id);
        return newest.ok_or_else(|| CliError::usage("there is no build yet"));
    }
    let fitting: Vec<BuildId> = page
        .builds
        .iter()
        .map(|build| build.id)
        .filter(|id| id.to_string().starts_with(text))
        .collect();
    match fitting[..] {
        [id] => Ok(id),
        [] => Err(CliError::usage(format!("no recent build has an id that begins with {text:?}"))),
        _ => Err(CliError::usage(format!(
            "several recent builds have an id that begins with {text:?}"
        ))),
    }
}
