//! One suite for every kind of bus.
#![expect(clippy::unwrap_used, reason = "a wrong assumption of a test fails the test")]

use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use api::worker::v1::LogChunk;
use common::{BuildId, Epoch, Lease, StageId};
use logbus::{Bus, Message};

struct Redis {
    child: Child,
    directory: tempfile::TempDir,
}

impl Redis {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let child = Self::spawn(directory.path());
        Self { child, directory }
    }

    fn spawn(directory: &std::path::Path) -> Child {
        let socket = directory.join("redis.sock");
        Command::new("setpriv")
            .args([
                "--pdeathsig",
                "KILL",
                "redis-server",
                "--port",
                "0",
                "--save",
                "",
                "--unixsocket",
            ])
            .arg(socket)
            .arg("--dir")
            .arg(directory)
            .stdout(Stdio::null())
            .spawn()
            .unwrap()
    }

    fn url(&self) -> String {
        format!("redis+unix://{}", self.directory.path().join("redis.sock").display())
    }

    fn stop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn chunk(number: u32) -> Message {
    let lease = Lease { stage: StageId(uuid::Uuid::nil()), epoch: Epoch(1) };
    let chunk = LogChunk { lease, chunk: number, lines: Vec::new() };
    Message::Log(BuildId(uuid::Uuid::nil()), Arc::new(chunk))
}

/// Sends until the other side has heard it, because subscribing takes a moment.
async fn reaches(from: &Bus, to: &Bus, message: Message) {
    let mut heard = to.subscribe();
    for _ in 0..400 {
        from.send(message.clone());
        let next = tokio::time::timeout(Duration::from_millis(50), heard.recv()).await;
        if matches!(next, Ok(Ok(found)) if found == message) {
            return;
        }
    }
    panic!("{message:?} never arrived");
}

#[tokio::test]
async fn messages_reach_subscribers_of_the_same_process_at_once() {
    let redis = Redis::start();
    for bus in [Bus::in_process(), Bus::redis(&redis.url()).unwrap()] {
        let mut heard = bus.subscribe();
        bus.send(Message::Workers);
        bus.send(chunk(3));
        assert_eq!(heard.recv().await.unwrap(), Message::Workers);
        assert_eq!(heard.recv().await.unwrap(), chunk(3));
    }
}

#[tokio::test]
async fn messages_reach_other_processes_also_after_redis_was_away() {
    let mut redis = Redis::start();
    let one = Bus::redis(&redis.url()).unwrap();
    let other = Bus::redis(&redis.url()).unwrap();
    reaches(&one, &other, chunk(1)).await;
    redis.stop();
    // With Redis gone the own process still hears everything, and nothing blocks.
    let mut heard = one.subscribe();
    for number in 0..100 {
        one.send(chunk(number));
        assert_eq!(heard.recv().await.unwrap(), chunk(number));
    }
    redis.child = Redis::spawn(redis.directory.path());
    reaches(&one, &other, chunk(2)).await;
    reaches(&other, &one, chunk(4)).await;
}
