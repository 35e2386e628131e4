//! A server on this machine that plays the hub.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use serde_json::json;
use sha2::{Digest, Sha256};

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Request {
    pub path: String,
    /// By their names in small letters.
    pub headers: HashMap<String, String>,
}

impl Request {
    /// The byte from which a file is asked for.
    pub fn start(&self) -> usize {
        let range = self.headers.get("range").map(String::as_str);
        let start = range.and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-'));
        start.map_or(0, |start| start.parse().expect("a number"))
    }
}

/// An answer.
#[derive(Debug, Clone, Default)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// The connection ends after so many bytes of the body, whatever its length is said to be.
    pub cut: Option<usize>,
}

impl Answer {
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self {
            status,
            body: body.into(),
            ..Self::default()
        }
    }

    pub fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    pub fn cut(mut self, bytes: usize) -> Self {
        self.cut = Some(bytes);
        self
    }
}

type Handler = dyn Fn(&Request) -> Answer + Send + Sync;

/// Answers one request at a time until it is dropped.
pub struct Server {
    pub url: String,
    requests: Arc<Mutex<Vec<Request>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    pub fn start(handler: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let requests: Arc<Mutex<Vec<Request>>> = Arc::default();
        let stop = Arc::new(AtomicBool::new(false));
        let thread = std::thread::spawn({
            let (requests, stop) = (requests.clone(), stop.clone());
            move || {
                for stream in listener.incoming().flatten() {
                    if stop.load(Ordering::SeqCst) {
                        return;
                    }
                    // A client that goes away is no concern of the server's.
                    let _ = serve(stream, &requests, &handler);
                }
            }
        });
        Self {
            url,
            requests,
            stop,
            thread: Some(thread),
        }
    }

    pub fn requests(&self) -> Vec<Request> {
        self.requests.lock().expect("alone").clone()
    }

    pub fn paths(&self) -> Vec<String> {
        let requests = self.requests().into_iter();
        requests.map(|request| request.path).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.url.trim_start_matches("http://"));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn serve(
    mut stream: TcpStream,
    requests: &Mutex<Vec<Request>>,
    handler: &Handler,
) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let first = lines.next().transpose()?.unwrap_or_default();
    let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut headers = HashMap::new();
    for line in lines {
        let line = line?;
        let Some((name, value)) = line.split_once(':') else {
            break;
        };
        headers.insert(name.to_lowercase(), value.trim().to_owned());
    }
    let request = Request { path, headers };
    let answer = handler(&request);
    requests.lock().expect("alone").push(request);

    let length = answer.body.len();
    let mut head = format!(
        "HTTP/1.1 {} As-Asked\r\nConnection: close\r\nContent-Length: {length}\r\n",
        answer.status
    );
    for (name, value) in &answer.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    stream.write_all(head.as_bytes())?;
    stream.write_all(&answer.body[..answer.cut.unwrap_or(length).min(length)])?;
    stream.flush()
}

/// The commit of [`Repository`].
pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// The files of a model, as the hub tells of them.
#[derive(Clone)]
pub struct Repository {
    pub files: Vec<(&'static str, Vec<u8>)>,
}

pub fn sha256(bytes: &[u8]) -> String {
    format!("{:x}", Sha256::digest(bytes))
}

fn is_large(name: &str) -> bool {
    name.ends_with(".safetensors") || name.ends_with(".bin")
}

/// What stands for git's hash of a small file.
fn git_hash(bytes: &[u8]) -> String {
    sha256(bytes)[..40].to_owned()
}

impl Repository {
    pub fn content(&self, name: &str) -> Vec<u8> {
        let found = self.files.iter().find(|(file, _)| *file == name);
        found.expect(name).1.clone()
    }

    fn listing(&self) -> Answer {
        let sibling = |(name, bytes): &(&str, Vec<u8>)| {
            let mut entry = json!({
                "rfilename": name, "size": bytes.len(), "blobId": git_hash(bytes),
            });
            if is_large(name) {
                entry["lfs"] =
                    json!({"sha256": sha256(bytes), "size": bytes.len(), "pointerSize": 130});
            }
            entry
        };
        let siblings: Vec<_> = self.files.iter().map(sibling).collect();
        let info = json!({"id": "org/tiny", "sha": COMMIT, "siblings": siblings, "private": false});
        Answer::new(200, info.to_string())
    }

    fn file(&self, request: &Request) -> Option<Answer> {
        let prefix = format!("/org/tiny/resolve/{COMMIT}/");
        let name = request.path.strip_prefix(&prefix)?;
        let (_, bytes) = self.files.iter().find(|(file, _)| *file == name)?;
        let start = request.start();
        let answer = match start {
            0 => Answer::new(200, bytes.as_slice()),
            _ => {
                let range = format!("bytes {start}-{}/{}", bytes.len() - 1, bytes.len());
                Answer::new(206, &bytes[start..]).header("Content-Range", range)
            }
        };
        let hash = if is_large(name) {
            sha256(bytes)
        } else {
            git_hash(bytes)
        };
        Some(answer.header("ETag", format!("\"{hash}\"")))
    }

    /// What the hub answers when nothing is wrong.
    pub fn answer(&self, request: &Request) -> Answer {
        let path = request.path.split('?').next().unwrap_or_default();
        match path.strip_prefix("/api/models/org/tiny/revision/") {
            Some("main" | COMMIT) => self.listing(),
            Some(_) => Answer::new(404, "").header("X-Error-Code", "RevisionNotFound"),
            None if path.starts_with("/api/") => {
                Answer::new(401, "").header("X-Error-Code", "RepoNotFound")
            }
            None => self
                .file(request)
                .unwrap_or_else(|| Answer::new(404, "").header("X-Error-Code", "EntryNotFound")),
        }
    }
}
