//! A web server of a few files, for ADD.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};

/// A file and what is said of it.
#[derive(Debug, Clone, Default)]
pub struct WebFile {
    /// Its bytes.
    pub content: Vec<u8>,
    /// `ETag`, with its quotes.
    pub tag: Option<String>,
    /// `Last-Modified`.
    pub modified: Option<String>,
    /// What `Authorization` has to say.
    pub authorization: Option<String>,
}

/// A server; it ends with the process.
#[derive(Debug, Clone)]
pub struct WebFiles {
    address: String,
    files: Arc<Mutex<BTreeMap<String, WebFile>>>,
    /// Method and path of every request.
    asked: Arc<Mutex<Vec<String>>>,
}

impl WebFiles {
    /// Starts a server on a free port.
    pub fn start() -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = format!("http://{}", listener.local_addr()?);
        let server = Self { address, files: Arc::default(), asked: Arc::default() };
        let shared = server.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let server = shared.clone();
                // Whoever hangs up early learns nothing.
                std::thread::spawn(move || drop(server.answer(stream)));
            }
        });
        Ok(server)
    }

    /// Where it is: `http://127.0.0.1:<port>`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Puts a file at a path such as `/a/b`.
    pub fn put(&self, path: &str, file: WebFile) {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        files.insert(path.to_owned(), file);
    }

    /// What was asked for since the last call: `GET /a/b`.
    pub fn asked(&self) -> Vec<String> {
        std::mem::take(&mut *self.asked.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn answer(&self, mut stream: TcpStream) -> std::io::Result<()> {
        let mut lines = BufReader::new(stream.try_clone()?).lines();
        let first = lines.next().transpose()?.unwrap_or_default();
        let mut authorization = None;
        while let Some(line) = lines.next().transpose()?.filter(|line| !line.is_empty()) {
            if let Some((name, value)) = line.split_once(": ")
                && name.eq_ignore_ascii_case("authorization")
            {
                authorization = Some(value.to_owned());
            }
        }
        let mut words = first.split(' ');
        let (method, path) = (words.next().unwrap_or(""), words.next().unwrap_or("/"));
        let asked = format!("{method} {path}");
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).push(asked);
        let path = path.split('?').next().unwrap_or(path);
        let file = self.files.lock().unwrap_or_else(PoisonError::into_inner).get(path).cloned();
        let Some(file) = file else {
            return stream.write_all(
                b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
            );
        };
        if file.authorization.is_some() && file.authorization != authorization {
            return stream.write_all(
                b"HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
            );
        }
        let mut head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n", file.content.len());
        for (name, value) in [("etag", &file.tag), ("last-modified", &file.modified)] {
            if let Some(value) = value {
                head.push_str(&format!("{name}: {value}\r\n"));
            }
        }
        stream.write_all(format!("{head}connection: close\r\n\r\n").as_bytes())?;
        if method == "GET" {
            stream.write_all(&file.content)?;
        }
        Ok(())
    }
}
