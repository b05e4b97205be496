//! Registries and token servers.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::json;
use testkit::{Service, free_port, wait_for};

use crate::certificates::openssl;

/// A registry.
pub(crate) struct Server {
    pub(crate) host: String,
    _service: Service,
}

impl Server {
    /// Starts one with further sections, and further members of `http`.
    pub(crate) fn start(directory: &Path, sections: &str, http: &str) -> Self {
        std::fs::create_dir_all(directory).unwrap();
        let host = SocketAddr::from(([127, 0, 0, 1], free_port().unwrap())).to_string();
        let path = directory.join("registry.yml");
        let config = format!(
            "version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\n\
             storage: {{filesystem: {{rootdirectory: \"{}\"}}}}\n{sections}\
             http: {{addr: \"{host}\"{http}}}\n",
            directory.join("registry").display()
        );
        std::fs::write(&path, config).unwrap();
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(&path);
        let service = Service::start("registry", &command, directory).unwrap();
        wait_for("the registry", Duration::from_secs(20), || {
            std::net::TcpStream::connect(&host).ok()
        })
        .unwrap();
        Self { host, _service: service }
    }
}

/// A token server (distribution specification, "Token Authentication").
pub(crate) struct TokenServer {
    pub(crate) host: String,
    pub(crate) certificate: PathBuf,
}

struct Keys {
    key: PathBuf,
    certificate_der: String,
}

impl TokenServer {
    pub(crate) async fn start(directory: &Path) -> Self {
        let [key, certificate] = ["token.key", "token.pem"].map(|name| directory.join(name));
        let [key_text, certificate_text] =
            [&key, &certificate].map(|path| path.display().to_string());
        openssl(&[
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-subj",
            "/CN=farm",
            "-keyout",
            &key_text,
            "-out",
            &certificate_text,
        ]);
        let pem = std::fs::read_to_string(&certificate).unwrap();
        let certificate_der = pem.lines().filter(|line| !line.starts_with("-----")).collect();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let keys = Arc::new(Keys { key, certificate_der });
        let router = Router::new().fallback(answer).with_state(keys);
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { host, certificate }
    }
}

async fn answer(State(keys): State<Arc<Keys>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let query = parts.uri.query().unwrap_or_default().to_owned();
    let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
    let header = parts.headers.get("authorization").and_then(|value| value.to_str().ok());
    let is_form = parts.method == axum::http::Method::POST;
    let given = if is_form { body.to_vec() } else { query.into_bytes() };
    let pairs: Vec<(String, String)> = url::form_urlencoded::parse(&given).into_owned().collect();
    let has = |key: &str, value: &str| pairs.iter().any(|(k, v)| k == key && v == value);
    let is_known = if is_form {
        has("grant_type", "refresh_token") && has("refresh_token", "refresh")
    } else {
        header == Some("Basic dXNlcjpzZWNyZXQ=")
    };
    if !is_known || !has("service", "farm") {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    let scopes = pairs.iter().filter(|(key, _)| key == "scope").flat_map(|(_, v)| v.split(' '));
    let access: Vec<_> = scopes
        .filter_map(|scope| {
            let (rest, actions) = scope.rsplit_once(':')?;
            let (kind, name) = rest.split_once(':')?;
            let actions: Vec<&str> = actions.split(',').collect();
            Some(json!({"type": kind, "name": name, "actions": actions}))
        })
        .collect();
    let header = json!({"typ": "JWT", "alg": "RS256", "x5c": [keys.certificate_der]});
    let now = std::time::SystemTime::now();
    let now = now.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let claims = json!({
        "iss": "farm", "sub": "user", "aud": "farm", "jti": "1", "access": access,
        "exp": now + 300, "nbf": now - 10, "iat": now - 10,
    });
    let part = |value: serde_json::Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
    let text = format!("{}.{}", part(header), part(claims));
    let signature = BASE64_URL_SAFE_NO_PAD.encode(sign(&keys.key, &text));
    let token = format!("{text}.{signature}");
    json!({ "token": token }).to_string().into_response()
}

fn sign(key: &Path, text: &str) -> Vec<u8> {
    use std::io::Write as _;
    let mut child = Command::new("openssl")
        .args(["dgst", "-sha256", "-sign"])
        .arg(key)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    output.stdout
}
