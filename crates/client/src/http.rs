//! Requests and answers in JSON.

use std::time::Duration;

use api::Problem;
use reqwest::{RequestBuilder, Response};
use serde::de::DeserializeOwned;

use crate::ClientError;

/// Makes the HTTP client that all of a program's clients share.
pub fn client() -> reqwest::Client {
    // Another part of the program may have chosen a provider already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder()
        .connect_timeout(Duration::from_secs(5))
        .tcp_nodelay(true)
        .user_agent(concat!("slipway/", env!("CARGO_PKG_VERSION")))
        .build()
        .unwrap_or_default()
}

/// Sends a request; an answer that is no success is a refusal.
pub(crate) async fn send(url: &str, request: RequestBuilder) -> Result<Response, ClientError> {
    let response = request.send().await.map_err(|error| unreachable(url, &error))?;
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let text = response.text().await.unwrap_or_default();
    let problem = serde_json::from_str::<Problem>(&text).unwrap_or_else(|_| {
        let start: String = text.chars().take(200).collect();
        Problem::new(status.as_u16(), "http-error", format!("{url} answered {status}: {start}"))
    });
    Err(ClientError::Refused(Box::new(problem)))
}

/// Sends a request and reads the answer.
pub(crate) async fn send_json<T: DeserializeOwned>(
    url: &str,
    request: RequestBuilder,
) -> Result<T, ClientError> {
    let response = send(url, request).await?;
    let bytes = response.bytes().await.map_err(|error| unreachable(url, &error))?;
    serde_json::from_slice(&bytes)
        .map_err(|error| ClientError::Malformed { url: url.to_owned(), message: error.to_string() })
}

/// Nobody answered: the innermost reason tells most.
pub(crate) fn unreachable(url: &str, error: &reqwest::Error) -> ClientError {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    let message =
        if error.is_timeout() { "no answer in time".to_owned() } else { cause.to_string() };
    ClientError::Unreachable { url: url.to_owned(), message }
}
