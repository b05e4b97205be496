//! What ADD fetches from elsewhere.

use std::path::Path;
use std::time::{Duration, Instant, UNIX_EPOCH};

use api::public::v1::TimingView;
use common::plan::Remote;
use common::{Failure, FailureClass};

use super::failure::JobError;
use super::stage::{StageRun, millis};

/// Downloads into the new directory `at`: `0/<name>`, `1/<name>`. Files are their owner's alone and
/// as old as the server says, as in BuildKit.
pub(super) async fn download(
    run: &StageRun<'_>,
    remotes: &[Remote],
    at: &Path,
    timing: &mut TimingView,
) -> Result<(), JobError> {
    use std::os::unix::fs::PermissionsExt as _;
    let start = Instant::now();
    for (number, remote) in remotes.iter().enumerate() {
        let Remote::Http { url, name, checksum } = remote else {
            let message = "this worker does not fetch repositories";
            return Err(Failure::new(FailureClass::Infrastructure, "not-supported", message).into());
        };
        let directory = at.join(number.to_string());
        std::fs::create_dir_all(&directory)?;
        let path = directory.join(name);
        let made = run.worker.fetcher.download(url, &path).await;
        let made = made.map_err(|error| error.failure())?;
        if let Some(expected) = checksum
            && made.digest != *expected
        {
            let message = format!("digest mismatch {}: {expected}", made.digest);
            let failure = Failure::new(FailureClass::User, "checksum-mismatch", message)
                .with_hint("the file behind the URL is another one than --checksum says");
            return Err(failure.into());
        }
        let file = std::fs::File::options().write(true).open(&path)?;
        file.set_permissions(std::fs::Permissions::from_mode(0o600))?;
        let age = made.modified.and_then(|seconds| u64::try_from(seconds).ok()).unwrap_or(0);
        file.set_modified(UNIX_EPOCH + Duration::from_secs(age))?;
    }
    timing.fetch_millis += millis(start);
    Ok(())
}
