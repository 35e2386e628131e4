//! The hub, played by a server on this machine: what is fetched, what is kept, and every way in which it can fail.

mod server;

use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use burn_lora_hub::{FetchProgress, Fetched, Hub, HubError, HubSettings, Wanted};
use server::{Answer, COMMIT, Repository, Request, Server, sha256};
use tempfile::TempDir;

const WEIGHTS: &str = "model.safetensors";

fn repository() -> Repository {
    let weights = (0..200_000u32).map(|x| (x % 251) as u8).collect();
    Repository {
        files: vec![
            (".gitattributes", b"x".to_vec()),
            ("README.md", b"a card".to_vec()),
            ("config.json", b"{\"model_type\": \"llama\"}".to_vec()),
            ("tokenizer.json", b"{}".to_vec()),
            (WEIGHTS, weights),
            ("pytorch_model.bin", vec![1; 10]),
        ],
    }
}

struct Scene {
    server: Server,
    cache: TempDir,
    settings: HubSettings,
}

impl Scene {
    fn new(handler: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Self {
        let server = Server::start(handler);
        let cache = tempfile::tempdir().expect("a folder");
        let settings = HubSettings {
            endpoint: server.url.clone(),
            retries: 2,
            retry_wait: Duration::from_millis(1),
            timeout: Duration::from_secs(5),
            ..HubSettings::new(cache.path())
        };
        Self {
            server,
            cache,
            settings,
        }
    }

    fn of(repository: Repository) -> Self {
        Self::new(move |request| repository.answer(request))
    }

    /// A hub that answers as it should but for the weights; told which time they are asked for, from 0.
    fn faulty(weights: impl Fn(&Request, Answer, usize) -> Answer + Send + Sync + 'static) -> Self {
        let (repository, times) = (repository(), AtomicUsize::new(0));
        Self::new(move |request| {
            let answer = repository.answer(request);
            match request.path.ends_with(WEIGHTS) {
                true => weights(request, answer, times.fetch_add(1, Ordering::SeqCst)),
                false => answer,
            }
        })
    }

    fn fetch(&self) -> Result<Fetched, HubError> {
        self.fetch_of("org/tiny", None)
    }

    fn fetch_of(&self, id: &str, revision: Option<&str>) -> Result<Fetched, HubError> {
        Hub::new(self.settings.clone()).fetch(id, revision, Wanted::Model, &mut |_| ())
    }

    #[track_caller]
    fn refused(&self) -> String {
        self.fetch().expect_err("refused").to_string()
    }

    /// Whether the weights come whole.
    #[track_caller]
    fn brings_the_weights(&self) {
        let fetched = self.fetch().expect("fetched");
        assert!(content(&fetched, WEIGHTS) == repository().content(WEIGHTS));
        assert_eq!(self.blobs(), 3, "no part is left");
    }

    /// The bytes from which the weights were asked for.
    fn starts(&self) -> Vec<usize> {
        let requests = self.server.requests();
        let of_weights = requests.iter().filter(|r| r.path.ends_with(WEIGHTS));
        of_weights.map(Request::start).collect()
    }

    /// How many files there are under `blobs`.
    fn blobs(&self) -> usize {
        let folder = self.cache.path().join("models--org--tiny/blobs");
        fs::read_dir(folder).into_iter().flatten().count()
    }
}

fn content(fetched: &Fetched, file: &str) -> Vec<u8> {
    fs::read(fetched.folder.join(file)).expect(file)
}

#[track_caller]
fn assert_says(error: &str, parts: &[&str]) {
    for part in parts {
        assert!(error.contains(part), "{part} in {error}");
    }
}

#[test]
fn only_what_is_needed_comes_and_all_of_it_from_one_commit() {
    let scene = Scene::of(repository());
    let fetched = scene.fetch().expect("fetched");
    assert_eq!(fetched.files, ["config.json", "tokenizer.json", WEIGHTS]);
    assert_eq!(fetched.commit, COMMIT);
    for file in &fetched.files {
        assert!(
            content(&fetched, file) == repository().content(file),
            "{file}"
        );
    }
    assert_eq!(fs::read_dir(&fetched.folder).expect("a folder").count(), 3);
    let paths = scene.server.paths();
    assert_eq!(paths[0], "/api/models/org/tiny/revision/main?blobs=true");
    assert_eq!(paths[1], format!("/org/tiny/resolve/{COMMIT}/config.json"));
    assert_eq!(paths.len(), 4);
    let requests = scene.server.requests();
    assert!(
        requests
            .iter()
            .all(|r| !r.headers.contains_key("authorization"))
    );

    // The layout is that of huggingface_hub.
    let folder = scene.cache.path().join("models--org--tiny");
    assert_eq!(
        fs::read_to_string(folder.join("refs/main")).expect("a ref"),
        COMMIT
    );
    assert_eq!(fetched.folder, folder.join("snapshots").join(COMMIT));
    let blob = folder
        .join("blobs")
        .join(sha256(&repository().content(WEIGHTS)));
    assert!(blob.is_file());
}

#[test]
fn what_is_in_the_cache_is_not_fetched_again() {
    let scene = Scene::of(repository());
    let first = scene.fetch().expect("fetched");
    assert_eq!(first.downloaded_bytes, 200_000 + 23 + 2);
    let again = scene.fetch().expect("cached");
    assert_eq!((again.downloaded_bytes, &again.folder), (0, &first.folder));
    assert_eq!(
        scene.server.paths().len(),
        5,
        "a list the second time, and no file"
    );
    // A whole commit cannot change: nothing is asked.
    scene.fetch_of("org/tiny", Some(COMMIT)).expect("cached");
    assert_eq!(scene.server.paths().len(), 5);
}

#[test]
fn a_file_in_the_cache_that_was_cut_is_fetched_again() {
    let scene = Scene::of(repository());
    let fetched = scene.fetch().expect("fetched");
    let blob = fs::canonicalize(fetched.folder.join(WEIGHTS)).expect("a blob");
    fs::write(&blob, [1, 2, 3]).expect("written");
    scene.brings_the_weights();
    assert_eq!(scene.starts().len(), 2);
}

#[test]
fn offline_only_the_cache_is_asked() {
    let mut scene = Scene::of(repository());
    scene.settings.offline = true;
    assert_says(&scene.refused(), &["org/tiny at main is not in the cache"]);
    scene.settings.offline = false;
    let fetched = scene.fetch().expect("fetched");
    scene.settings.offline = true;
    assert_eq!(scene.fetch().expect("cached").folder, fetched.folder);
    let asked = scene.server.paths().len();
    fs::remove_file(fetched.folder.join("config.json")).expect("removed");
    assert_says(&scene.refused(), &["it lacks config.json"]);
    assert_eq!(scene.server.paths().len(), asked);
}

#[test]
fn shards_are_those_of_the_index() {
    let index =
        r#"{"weight_map": {"a": "model-1-of-2.safetensors", "b": "model-2-of-2.safetensors"}}"#;
    let repository = |index: &str| Repository {
        files: vec![
            ("config.json", b"{}".to_vec()),
            ("model.safetensors.index.json", index.as_bytes().to_vec()),
            ("model-1-of-2.safetensors", vec![1; 100]),
            ("model-2-of-2.safetensors", vec![2; 100]),
            ("model-1-of-9.safetensors", vec![3; 100]),
        ],
    };
    let scene = Scene::of(repository(index));
    let fetched = scene.fetch().expect("fetched");
    assert_eq!(fetched.files.len(), 4, "{:?}", fetched.files);
    assert_eq!(content(&fetched, "model-2-of-2.safetensors"), [2; 100]);

    let scene = Scene::of(repository(&index.replace("2-of-2", "3-of-2")));
    assert_says(
        &scene.refused(),
        &["index.json", "lacks model-3-of-2.safetensors"],
    );
}

#[test]
fn a_connection_that_was_cut_goes_on_where_it_was() {
    let scene = Scene::faulty(|_, answer, time| if time < 2 { answer.cut(70_000) } else { answer });
    scene.brings_the_weights();
    assert_eq!(scene.starts(), [0, 70_000, 140_000]);
}

#[test]
fn what_came_before_the_last_cut_is_kept_for_the_next_run() {
    let scene = Scene::faulty(|_, answer, time| if time < 3 { answer.cut(50_000) } else { answer });
    let error = scene.refused();
    assert_says(
        &error,
        &[
            "model.safetensors was cut 3 times",
            "after 150000 of 200000 bytes",
        ],
    );
    scene.brings_the_weights();
    assert_eq!(scene.starts(), [0, 50_000, 100_000, 150_000]);
}

#[test]
fn a_server_that_cannot_go_on_begins_again() {
    let whole = repository().content(WEIGHTS);
    let scene = Scene::faulty(move |_, answer, time| match time {
        0 => answer.cut(70_000),
        _ => Answer::new(200, whole.as_slice()),
    });
    scene.brings_the_weights();
    let scene = Scene::faulty(|_, answer, time| match time {
        0 => answer.cut(70_000),
        1 => Answer::new(416, ""),
        _ => answer,
    });
    scene.brings_the_weights();
    assert_eq!(scene.starts(), [0, 70_000, 0]);
}

#[test]
fn a_file_of_another_size_or_content_is_not_kept() {
    type Fault = fn(&mut Vec<u8>);
    let faults: [(Fault, &str); 3] = [
        (
            |body| body.truncate(1000),
            "came with 1000 bytes, and the hub lists 200000",
        ),
        (
            |body| body.extend([0; 300_000]),
            "and the hub lists 200000; it was not kept",
        ),
        (|body| body[5] ^= 1, "came with the SHA-256"),
    ];
    for (fault, expected) in faults {
        let scene = Scene::faulty(move |_, mut answer, _| {
            fault(&mut answer.body);
            answer
        });
        assert_says(&scene.refused(), &[WEIGHTS, expected]);
        assert_eq!(scene.blobs(), 2, "{expected}");
    }
}

#[test]
fn a_file_announced_as_another_is_refused() {
    let scene = Scene::faulty(|_, mut answer, _| {
        answer.headers.clear();
        answer.header("ETag", format!("W/\"{}\"", "ab".repeat(32)))
    });
    assert_says(&scene.refused(), &["is announced with the etag abab"]);
}

#[test]
fn a_redirection_is_followed_and_the_token_stays_behind() {
    let weights = repository().content(WEIGHTS);
    let hash = sha256(&weights);
    let other = Server::start(move |_| {
        Answer::new(200, weights.as_slice()).header("ETag", "\"of-the-store\"")
    });
    let (repository, target) = (repository(), format!("{}/blob?key=1", other.url));
    let mut scene = Scene::new(move |request| match request.path.as_str() {
        "/elsewhere" => Answer::new(302, "").header("Location", target.clone()),
        path if path.ends_with(WEIGHTS) => Answer::new(307, "")
            .header("Location", "/elsewhere")
            .header("X-Linked-Etag", format!("\"{hash}\"")),
        _ => repository.answer(request),
    });
    scene.settings.token = Some("secret".into());
    scene.brings_the_weights();
    let token = |request: &Request| request.headers.get("authorization").cloned();
    let of_hub = scene.server.requests();
    assert!(
        of_hub
            .iter()
            .all(|r| token(r).as_deref() == Some("Bearer secret"))
    );
    assert!(other.requests().iter().all(|r| token(r).is_none()));
    assert_eq!(other.paths(), ["/blob?key=1"]);
}

#[test]
fn redirections_without_end_or_aim_are_errors() {
    let scene = Scene::faulty(|request, _, _| {
        Answer::new(302, "").header("Location", request.path.clone())
    });
    assert_says(&scene.refused(), &["redirects again and again"]);
    for location in ["", "x", "//evil/x", "ftp://x"] {
        let scene = Scene::faulty(move |_, _, _| Answer::new(302, "").header("Location", location));
        assert_says(&scene.refused(), &["redirects to no address"]);
    }
    let scene = Scene::faulty(|_, _, _| Answer::new(302, ""));
    assert_says(&scene.refused(), &["redirects to no address"]);
}

#[test]
fn a_model_that_may_not_be_read_says_what_to_do() {
    let refuse = |status: u16, code: &'static str, token: Option<&str>| {
        let mut scene = Scene::new(move |_| {
            let answer = Answer::new(status, "").header("X-Error-Code", code);
            answer.header("X-Error-Message", "no")
        });
        scene.settings.token = token.map(str::to_owned);
        let error = scene.refused();
        assert_eq!(scene.server.paths().len(), 1, "it is not tried again");
        error
    };
    assert_says(&refuse(401, "", None), &["401, \"no\"", "set HF_TOKEN"]);
    assert_says(
        &refuse(403, "", Some("t")),
        &["403", "the token in HF_TOKEN"],
    );
    assert_says(
        &refuse(403, "GatedRepo", None),
        &["agree to its terms at http", "org/tiny", "HF_TOKEN"],
    );
    assert_says(
        &refuse(401, "RepoNotFound", None),
        &["has no model org/tiny, or it is private"],
    );
    assert_says(
        &refuse(404, "RepoNotFound", Some("t")),
        &["the token may not read it"],
    );
}

#[test]
fn a_gated_file_of_a_listed_model_says_what_to_do() {
    let scene = Scene::faulty(|_, _, _| Answer::new(403, "").header("X-Error-Code", "GatedRepo"));
    assert_says(&scene.refused(), &["agree to its terms"]);
}

#[test]
fn an_unknown_revision_and_a_missing_file_are_named() {
    let scene = Scene::of(repository());
    let refused = |id, revision| {
        scene
            .fetch_of(id, revision)
            .expect_err("refused")
            .to_string()
    };
    assert_says(
        &refused("org/tiny", Some("v9")),
        &["org/tiny has no revision `v9`"],
    );
    assert_says(&refused("org/other", None), &["has no model org/other"]);
    let mut repository = repository();
    repository.files[2].0 = "configuration.json";
    let scene = Scene::of(repository);
    assert_says(
        &scene.refused(),
        &["has no config.json; nearest: configuration.json"],
    );
    assert_eq!(scene.server.paths().len(), 1, "nothing was fetched");
}

#[test]
fn a_listed_file_that_is_gone_is_named() {
    let scene = Scene::faulty(|_, _, _| Answer::new(404, ""));
    assert_says(&scene.refused(), &["model.safetensors is listed, and gone"]);
}

#[test]
fn an_overloaded_hub_is_asked_again() {
    let (repository, times) = (repository(), AtomicUsize::new(0));
    let scene = Scene::new(move |request| match times.fetch_add(1, Ordering::SeqCst) {
        0 => Answer::new(503, ""),
        2 => Answer::new(429, ""),
        _ => repository.answer(request),
    });
    scene.brings_the_weights();
    let scene = Scene::new(|_| Answer::new(500, "").header("X-Error-Message", "broken"));
    assert_says(
        &scene.refused(),
        &["does not answer: status 500, \"broken\""],
    );
    assert_eq!(scene.server.paths().len(), 3);
}

#[test]
fn a_hub_that_is_not_there_points_at_the_cache() {
    let mut scene = Scene::of(repository());
    scene.fetch().expect("fetched");
    // A port that was free a moment ago.
    let gone = Server::start(|_| Answer::new(200, "")).url.clone();
    scene.settings.endpoint = gone.clone();
    assert_says(
        &scene.refused(),
        &[&gone, "does not answer", "HF_HUB_OFFLINE=1"],
    );
    scene.settings.endpoint = "no address".into();
    assert_says(&scene.refused(), &["no address does not answer"]);
}

#[test]
fn an_answer_that_is_none_of_the_hubs_is_refused() {
    for body in ["<html>", "{}", r#"{"sha": "../../x", "siblings": []}"#] {
        let scene = Scene::new(move |_| Answer::new(200, body));
        assert_says(&scene.refused(), &["no answer of the hub"]);
    }
}

#[test]
fn names_that_leave_the_cache_are_refused_before_anything_is_asked() {
    let scene = Scene::of(repository());
    for id in ["../x", "a/b/c", "a/..", ""] {
        let error = scene.fetch_of(id, None).expect_err("refused");
        assert!(matches!(error, HubError::BadId { .. }), "{error}");
    }
    let error = scene
        .fetch_of("org/tiny", Some("../../x"))
        .expect_err("refused");
    assert!(matches!(error, HubError::BadRevision { .. }), "{error}");
    assert!(scene.server.paths().is_empty());
}

#[test]
fn progress_ends_at_the_size_of_all_files() {
    let scene = Scene::of(repository());
    let mut seen = Vec::new();
    let mut progress = |p: FetchProgress<'_>| seen.push((p.bytes, p.total_bytes));
    let hub = Hub::new(scene.settings.clone());
    let fetched = hub.fetch("org/tiny", None, Wanted::Model, &mut progress);
    fetched.expect("fetched");
    assert_eq!(seen.last(), Some(&(200_025, 200_025)));
    assert!(seen.windows(2).all(|two| two[0].0 <= two[1].0), "{seen:?}");
}

#[test]
fn an_adapter_is_its_own_kind() {
    let scene = Scene::of(Repository {
        files: vec![
            ("adapter_config.json", b"{}".to_vec()),
            ("adapter_model.safetensors", vec![1; 10]),
            ("tokenizer.json", b"{}".to_vec()),
        ],
    });
    let hub = Hub::new(scene.settings.clone());
    let fetched = hub.fetch("org/tiny", None, Wanted::Adapter, &mut |_| ());
    let expected = ["adapter_config.json", "adapter_model.safetensors"];
    assert_eq!(fetched.expect("fetched").files, expected);
    assert_says(&scene.refused(), &["has no config.json"]);
}
