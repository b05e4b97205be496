//! The Redis side: one task that sends, one that receives, each with its own connection, because a
//! waiting subscription would hold up everything behind it.

use std::time::Duration;

use futures_util::StreamExt as _;
use redis::{AsyncCommands as _, Client, RedisResult};
use serde::{Deserialize, Serialize};
use tokio::sync::{broadcast, mpsc};

use crate::Message;

/// The channel; another version of the message format needs another name.
const CHANNEL: &str = "slipway:bus:1";
/// Time that one call to Redis may take.
const CALL_LIMIT: Duration = Duration::from_millis(200);
/// Pause before a new connection is tried.
const PAUSE: Duration = Duration::from_millis(500);

#[derive(Serialize, Deserialize)]
struct Envelope {
    /// The sender: its own messages come back and are ignored.
    from: u64,
    message: Message,
}

pub(crate) fn start(
    client: Client,
    local: broadcast::Sender<Message>,
    queue: mpsc::Receiver<Message>,
) {
    // Unique enough to know one's own messages again.
    let me = u64::from(std::process::id()) << 32 | u64::from(address_hash(&local));
    tokio::spawn(send_all(client.clone(), queue, me));
    tokio::spawn(receive_all(client, local, me));
}

fn address_hash(local: &broadcast::Sender<Message>) -> u32 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let address = std::ptr::from_ref(local).addr();
    now.map_or(0, |now| now.subsec_nanos()) ^ u32::try_from(address & 0xffff_ffff).unwrap_or(0)
}

async fn send_all(client: Client, mut queue: mpsc::Receiver<Message>, me: u64) {
    let mut connection = None;
    while let Some(message) = queue.recv().await {
        let Ok(text) = serde_json::to_string(&Envelope { from: me, message }) else { continue };
        if connection.is_none() {
            let opened = client.get_multiplexed_async_connection();
            connection = match tokio::time::timeout(CALL_LIMIT, opened).await {
                Ok(Ok(connection)) => Some(connection),
                _ => None,
            };
        }
        let Some(open) = &mut connection else {
            // While Redis is away messages are not worth keeping: the truth is elsewhere.
            tokio::time::sleep(PAUSE).await;
            while queue.try_recv().is_ok() {}
            continue;
        };
        let sent: Result<RedisResult<i64>, _> =
            tokio::time::timeout(CALL_LIMIT, open.publish(CHANNEL, text)).await;
        if !matches!(sent, Ok(Ok(_))) {
            connection = None;
        }
    }
}

async fn receive_all(client: Client, local: broadcast::Sender<Message>, me: u64) {
    let mut reported = false;
    loop {
        if let Err(error) = receive(&client, &local, me, &mut reported).await
            && !reported
        {
            tracing::warn!(%error, "redis is not reachable; builds go on, live logs of other coordinators pause");
            reported = true;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn receive(
    client: &Client,
    local: &broadcast::Sender<Message>,
    me: u64,
    reported: &mut bool,
) -> RedisResult<()> {
    let mut subscription = client.get_async_pubsub().await?;
    subscription.subscribe(CHANNEL).await?;
    if std::mem::take(reported) {
        tracing::info!("redis is reachable again");
    }
    let mut messages = subscription.on_message();
    while let Some(message) = messages.next().await {
        let Ok(text) = message.get_payload::<String>() else { continue };
        let Ok(envelope) = serde_json::from_str::<Envelope>(&text) else { continue };
        if envelope.from != me {
            let _ = local.send(envelope.message);
        }
    }
    Ok(())
}
