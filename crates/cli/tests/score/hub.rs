//! `--model org/name`: a hub on this machine with one model, and one without any.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::Output;

use serde_json::json;

use super::common::{TOLERANCE, command, golden, largest_difference, tensor, write_ids};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// Serves a folder as the model `org/tiny` for as long as the process lives, and returns the address.
fn serve(folder: &Path) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let folder = folder.to_owned();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut lines = BufReader::new(&stream).lines().map_while(Result::ok);
            let request = lines.next().unwrap_or_default();
            lines.take_while(|line| !line.is_empty()).for_each(drop);
            let path = request.split([' ', '?']).nth(1).unwrap_or_default();
            let (status, body) = answer(&folder, path);
            let head = format!(
                "HTTP/1.1 {status} X\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
                body.len()
            );
            let _ = stream.write_all(&[head.as_bytes(), &body].concat());
        }
    });
    url
}

fn answer(folder: &Path, path: &str) -> (u16, Vec<u8>) {
    if path == "/api/models/org/tiny/revision/main" {
        let names = fs::read_dir(folder).expect("a folder").flatten();
        let siblings: Vec<_> = names
            .map(|entry| json!({"rfilename": entry.file_name().to_string_lossy()}))
            .collect();
        return (
            200,
            json!({"sha": COMMIT, "siblings": siblings})
                .to_string()
                .into(),
        );
    }
    let file = path.strip_prefix(&format!("/org/tiny/resolve/{COMMIT}/"));
    match file.and_then(|file| fs::read(folder.join(file)).ok()) {
        Some(bytes) => (200, bytes),
        None => (404, Vec::new()),
    }
}

fn score(folder: &Path, endpoint: &str, model: &str, offline: &str) -> Output {
    command(folder)
        .args([
            "score",
            "--model",
            model,
            "--ids",
            "ids.json",
            "--output",
            "o.safetensors",
        ])
        .env("HF_ENDPOINT", endpoint)
        .env("HF_HUB_OFFLINE", offline)
        .output()
        .expect("started")
}

#[test]
fn a_model_on_the_hub_is_fetched_once_and_then_there() {
    let folder = tempfile::tempdir().expect("a folder");
    let lengths = write_ids("llama_tied", &folder.path().join("ids.json"));
    let endpoint = serve(&golden("llama_tied/model"));
    // The second run has no hub to ask.
    for (endpoint, offline) in [(endpoint.as_str(), "0"), ("http://127.0.0.1:9", "1")] {
        let output = score(folder.path(), endpoint, "org/tiny", offline);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{error}");
        let logits = tensor(&folder.path().join("o.safetensors"), "logits");
        let expected = tensor(&golden("llama_tied/reference.safetensors"), "base.logits");
        let gap = largest_difference(&logits, &expected, &lengths);
        assert!(gap <= TOLERANCE, "{gap}");
    }
    let snapshot = format!("cache/hub/models--org--tiny/snapshots/{COMMIT}");
    assert!(folder.path().join(snapshot).join("config.json").is_file());
}

#[test]
fn a_model_that_is_not_there_is_told_with_its_exit_code() {
    let folder = tempfile::tempdir().expect("a folder");
    write_ids("llama", &folder.path().join("ids.json"));
    let endpoint = serve(&golden("llama/model"));
    let refused = |model, offline| {
        let output = score(folder.path(), &endpoint, model, offline);
        assert_eq!(output.status.code(), Some(5));
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let error = refused("org/other", "0");
    assert!(
        error.contains("has no model org/other, or it is private"),
        "{error}"
    );
    let error = refused("org/tiny", "1");
    assert!(
        error.contains("not in the cache") && error.contains("HF_HUB_OFFLINE"),
        "{error}"
    );
}
