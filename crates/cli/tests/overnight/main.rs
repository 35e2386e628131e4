//! Runs that are killed, stopped, and left without disk, as a night may have it. What they end with is compared, byte for
//! byte, with what an undisturbed run ends with.
#![cfg(unix)]

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::Value;

/// A folder with data and a configuration for short runs on the tiny base.
struct Night {
    dir: tempfile::TempDir,
    base: PathBuf,
}

impl Night {
    fn new() -> Self {
        let base = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../datasets/tiny-base");
        let base = base.canonicalize().expect("the tiny base");
        let dir = tempfile::tempdir().expect("a folder");
        let rows: String = (0..40)
            .map(|row| format!("ship {row},\" chairs: {}\"\n", row * row % 7))
            .collect();
        fs::write(
            dir.path().join("rows.csv"),
            format!("prompt,completion\n{rows}"),
        )
        .expect("written");
        let config = "data: {path: rows.csv, valid_fraction: 0.2}\n\
             adapter: {rank: 2, dropout: 0.1, targets: \"q_proj,v_proj\"}\n\
             training: {steps: 40, batch_size: 2, eval_every: 7, save_every: 1, log_every: 1, max_seq_len: 32}\n\
             evaluation: {rows: 0}\n";
        fs::write(dir.path().join("night.yaml"), config).expect("written");
        Self { dir, base }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The command of a run that writes to `output`.
    fn train(&self, output: &str, more: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_burn-lora"));
        self.arguments(&mut command, output, more);
        command
    }

    fn arguments(&self, command: &mut Command, output: &str, more: &[&str]) {
        command
            .current_dir(self.dir.path())
            .env("BURN_DEVICE", "flex")
            .env("RAYON_NUM_THREADS", "2")
            .args(["train", "night.yaml"])
            .arg(format!("model={}", self.base.display()))
            .arg(format!("output={output}"))
            .args(more)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
    }

    fn adapter(&self, output: &str) -> Vec<u8> {
        let file = self.path(output).join("adapter/adapter_model.safetensors");
        fs::read(file).expect("an adapter")
    }

    /// The names of the checkpoints.
    fn checkpoints(&self, output: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path(output).join("checkpoints"));
        let names = entries.into_iter().flatten().flatten();
        let mut names: Vec<String> = names
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .filter(|name| name.starts_with("step-"))
            .collect();
        names.sort();
        names
    }
}

#[track_caller]
fn result(output: &Output) -> Value {
    let error = String::from_utf8_lossy(&output.stderr);
    let text = String::from_utf8_lossy(&output.stdout);
    let last = text.lines().last().unwrap_or_default();
    let json = last
        .strip_prefix("RESULT ")
        .unwrap_or_else(|| panic!("{text}{error}"));
    serde_json::from_str(json).expect("an object")
}

#[track_caller]
fn done(command: &mut Command) -> Value {
    let output = command.output().expect("started");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{error}");
    result(&output)
}

/// Waits for the line of a step, whichever it is; nothing if the process ends before.
fn first_step(child: &mut Child) -> Option<()> {
    let mut lines = BufReader::new(child.stderr.take()?).lines();
    let found = lines
        .by_ref()
        .map_while(Result::ok)
        .any(|line| line.starts_with("step "));
    // The rest is let go, or the pipe would fill up.
    std::thread::spawn(move || lines.for_each(drop));
    found.then_some(())
}

fn signal(child: &Child, name: &str) {
    let kill = Command::new("kill")
        .args(["-s", name, &child.id().to_string()])
        .status();
    assert!(kill.expect("a shell's kill").success());
}

#[test]
fn a_run_that_is_killed_fifty_times_ends_as_if_it_never_was() {
    let night = Night::new();
    let whole = done(&mut night.train("whole", &[]));
    let mut random = ChaCha8Rng::seed_from_u64(7);
    let (mut kills, mut runs) = (0, 0);
    while kills < 50 {
        runs += 1;
        let output = format!("killed-{runs}");
        let mut resume: &[&str] = &[];
        loop {
            let mut child = night.train(&output, resume).spawn().expect("started");
            // Most while it trains and saves, some while it only begins.
            if !random.random_ratio(1, 8) {
                first_step(&mut child);
            }
            std::thread::sleep(Duration::from_micros(random.random_range(0..120_000)));
            child.kill().expect("killed, or over");
            let ended = child.wait().expect("over");
            if ended.success() {
                break;
            }
            assert_eq!(ended.code(), None, "it fails by nothing but the kill");
            kills += 1;
            // Killed before it had begun, there is nothing to resume.
            let has_begun = night.path(&output).join("checkpoints/run.json").exists();
            resume = if has_begun { &["--resume"] } else { &[] };
            if kills >= 50 {
                break;
            }
        }
        let ended = done(&mut night.train(&output, &["--resume"]));
        assert!(
            night.adapter(&output) == night.adapter("whole"),
            "{output} differs"
        );
        for fact in [
            "train_loss",
            "valid_loss",
            "steps",
            "tokens",
            "learned_tokens",
        ] {
            assert_eq!(ended[fact], whole[fact], "{fact}");
        }
        assert_eq!(night.checkpoints(&output), ["step-39", "step-40"]);
    }
}

#[test]
fn a_streamed_run_that_is_killed_goes_on_with_the_same_rows() {
    let night = Night::new();
    let rows: String = (0..90)
        .map(|row| {
            format!(
                "{{\"text\": \"Ship {row} has {} chairs.\"}}\n",
                row * row % 7
            )
        })
        .collect();
    fs::write(night.path("rows.jsonl"), rows).expect("written");
    let streamed = [
        "data.path=rows.jsonl",
        "data.stream=true",
        "data.stream_buffer=16",
    ];
    let whole = done(&mut night.train("whole", &streamed));
    assert_eq!(
        whole["valid_loss"],
        Value::Null,
        "there is no file for that"
    );
    let mut child = night.train("killed", &streamed).spawn().expect("started");
    first_step(&mut child).expect("it trains");
    std::thread::sleep(Duration::from_millis(150));
    child.kill().expect("killed, or over");
    child.wait().expect("over");
    let resumed = [&streamed[..], &["--resume"]].concat();
    let ended = done(&mut night.train("killed", &resumed));
    assert_eq!(ended["tokens"], whole["tokens"]);
    assert!(night.adapter("killed") == night.adapter("whole"));

    // A fault in a row is told when the row is drawn, with the checkpoint before it.
    let mut faulty = fs::read_to_string(night.path("rows.jsonl")).expect("rows");
    faulty.push_str("{\"text\": \n");
    fs::write(night.path("rows.jsonl"), faulty).expect("written");
    let faulty = [&streamed[..], &["steps=60"]].concat();
    let output = night.train("faulty", &faulty).output().expect("started");
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(4), "{error}");
    assert!(
        error.contains("rows.jsonl:91") && error.contains("resume goes on"),
        "{error}"
    );
}

#[test]
fn control_c_saves_and_a_second_one_ends_at_once() {
    let night = Night::new();
    let long = ["training.steps=4000", "warmup=10"];
    for (name, code) in [("INT", 130), ("TERM", 143)] {
        let mut child = night.train(name, &long).spawn().expect("started");
        first_step(&mut child).expect("it trains");
        signal(&child, name);
        let output = child.wait_with_output().expect("over");
        assert_eq!(output.status.code(), Some(code));
        let told = result(&output);
        assert_eq!(told["stopped"], "asked");
        assert_eq!(told["adapter"], Value::Null);
        let step = format!("step-{}", told["steps"]);
        assert!(
            told["checkpoint"]
                .as_str()
                .expect("a folder")
                .ends_with(&step)
        );
        assert!(night.checkpoints(name).contains(&step));
    }
    // Where nothing is saved on the way, what was learned is the adapter.
    let unsaved = [&long[..], &["save_every=null"]].concat();
    let mut child = night.train("unsaved", &unsaved).spawn().expect("started");
    first_step(&mut child).expect("it trains");
    signal(&child, "INT");
    let output = child.wait_with_output().expect("over");
    assert_eq!(output.status.code(), Some(130));
    assert_eq!(result(&output)["adapter"], "unsaved/adapter");
    assert!(!night.adapter("unsaved").is_empty());

    // Both wait for the process to be woken, so that it has no time to save between them.
    let mut child = night.train("twice", &long).spawn().expect("started");
    first_step(&mut child).expect("it trains");
    signal(&child, "STOP");
    signal(&child, "INT");
    signal(&child, "TERM");
    signal(&child, "CONT");
    let code = child.wait().expect("over").code();
    assert!(matches!(code, Some(130 | 143)), "{code:?}");
}

/// The dashboard has the terminal in a mode in which Ctrl-C is a key like others.
#[test]
#[allow(clippy::print_stderr, reason = "says that nothing was looked at")]
fn control_c_saves_under_the_dashboard() {
    if Command::new("tmux").arg("-V").output().is_err() {
        eprintln!("no tmux here (apt-get install tmux): the dashboard was not stopped");
        return;
    }
    let night = Night::new();
    let tmux = |arguments: &[&str]| {
        let mut command = Command::new("tmux");
        command.arg("-S").arg(night.path("tmux")).args(arguments);
        String::from_utf8_lossy(&command.output().expect("started").stdout).into_owned()
    };
    let wait = |part: &str| {
        for _ in 0..900 {
            let screen = tmux(&["capture-pane", "-p", "-t", "run"]);
            if screen.contains(part) {
                return;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        panic!("{part}: {}", tmux(&["capture-pane", "-p", "-t", "run"]));
    };
    let command = format!(
        "trap : INT; cd {} && env -u CI BURN_DEVICE=flex TERM=screen-256color {} train night.yaml model={} output=shown steps=100000; \
         echo code $?; sleep 60",
        night.dir.path().display(),
        env!("CARGO_BIN_EXE_burn-lora"),
        night.base.display(),
    );
    let size = ["-x", "160", "-y", "48"];
    let session = ["-f", "/dev/null", "new-session", "-d", "-s", "run"];
    tmux(&[&session[..], &size, &[&command]].concat());
    wait("Loss");
    tmux(&["send-keys", "-t", "run", "C-c"]);
    wait("code 130");
    tmux(&["kill-server"]);
    assert!(!night.checkpoints("shown").is_empty());
}

#[test]
fn a_full_disk_leaves_the_last_checkpoint() {
    let night = Night::new();
    let whole = done(&mut night.train("whole", &[]));
    // A file may not be larger than this many blocks, which a checkpoint's are.
    let limited = |blocks: usize, more: &[&str]| {
        let mut shell = Command::new("sh");
        shell.args([
            "-c",
            &format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$@\""),
        ]);
        shell.args(["sh", env!("CARGO_BIN_EXE_burn-lora")]);
        night.arguments(&mut shell, "full", more);
        shell.output().expect("started")
    };
    done(&mut night.train("full", &["max_tokens=200"]));
    let before = night.checkpoints("full");
    let output = limited(16, &["--resume", "max_tokens=null"]);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(
        error.contains("File too large") && error.contains("resume goes on"),
        "{error}"
    );
    assert!(!error.contains("panicked"), "{error}");
    assert_eq!(night.checkpoints("full"), before);
    let rest = done(&mut night.train("full", &["--resume"]));
    assert_eq!(rest["steps"], whole["steps"]);
    assert!(night.adapter("full") == night.adapter("whole"));
}

#[test]
fn a_base_is_shared_and_never_written() {
    let night = Night::new();
    let shared = night.path("base");
    fs::create_dir(&shared).expect("made");
    let mut files = Vec::new();
    for entry in fs::read_dir(&night.base).expect("a folder").flatten() {
        let to = shared.join(entry.file_name());
        fs::copy(entry.path(), &to).expect("copied");
        fs::set_permissions(&to, fs::Permissions::from_mode(0o444)).expect("read-only");
        files.push((to.clone(), fs::read(&to).expect("a file"), modified(&to)));
    }
    fs::set_permissions(&shared, fs::Permissions::from_mode(0o555)).expect("read-only");
    let night = Night {
        base: shared.clone(),
        ..night
    };
    let runs = ["one", "two"].map(|output| night.train(output, &["steps=8"]).spawn());
    for run in runs {
        let output = run.expect("started").wait_with_output().expect("over");
        assert_eq!(result(&output)["steps"], 8);
    }
    assert!(night.adapter("one") == night.adapter("two"));
    for (path, content, time) in &files {
        assert!(
            fs::read(path).expect("a file") == *content,
            "{}",
            path.display()
        );
        assert_eq!(modified(path), *time, "{}", path.display());
    }
    assert_eq!(
        fs::read_dir(&shared).expect("a folder").count(),
        files.len()
    );
    fs::set_permissions(&shared, fs::Permissions::from_mode(0o755)).expect("for its removal");
}

fn modified(path: &Path) -> std::time::SystemTime {
    fs::metadata(path)
        .and_then(|file| file.modified())
        .expect("a time")
}

#[test]
fn what_cannot_be_resumed_is_told() {
    let night = Night::new();
    let refused = |code: i32, output: &str, more: &[&str]| {
        let output = night.train(output, more).output().expect("started");
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{error}");
        assert!(
            output.stdout.is_empty() && !error.contains("panicked"),
            "{error}"
        );
        error
    };
    let error = refused(7, "never", &["--resume"]);
    assert!(error.contains("holds no run to resume"), "{error}");

    let started = done(&mut night.train("run", &["max_tokens=100"]));
    assert_eq!(started["stopped"], "max_tokens");
    let error = refused(2, "run", &["--resume", "rank=3", "adapter.alpha=5"]);
    for part in ["adapter.rank: 2, now 3", "adapter.alpha: 16.0, now 5.0"] {
        assert!(error.contains(part), "{error}");
    }
    let rows = fs::read_to_string(night.path("rows.csv")).expect("rows");
    fs::write(night.path("rows.csv"), rows.replace("ship 3,", "boat 3,")).expect("written");
    let error = refused(2, "run", &["--resume", "learning_rate=0.001"]);
    for part in [
        "learning_rate: 0.0002, now 0.001",
        "_data: \"",
        "allow_changes",
    ] {
        assert!(error.contains(part), "{error}");
    }
    fs::write(night.path("rows.csv"), rows).expect("written");

    let names = night.checkpoints("run");
    let last = night.path("run/checkpoints").join(&names[1]);
    fs::write(last.join("optimizer.bpk"), "torn").expect("written");
    let output = night
        .train("run", &["--resume", "max_tokens=null"])
        .output()
        .expect("started");
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{told}");
    assert!(
        told.contains("warning   left out") && told.contains("4 bytes of"),
        "{told}"
    );
    assert_eq!(result(&output)["steps"], 40);

    fs::remove_file(night.path("rows.csv")).expect("removed");
    let error = refused(4, "run", &["--resume"]);
    assert!(error.contains("rows.csv"), "{error}");
    assert_eq!(night.checkpoints("run"), ["step-39", "step-40"]);
}
