//! The dashboard in a terminal, by way of tmux.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::setup;

/// A session of a server of its own, which ends with it.
struct Session<'a> {
    socket: &'a Path,
}

impl<'a> Session<'a> {
    /// Runs the command in a terminal; nothing where there is no tmux.
    #[allow(clippy::print_stderr, reason = "says that nothing was looked at")]
    fn start(folder: &Path, socket: &'a Path, environment: &str, arguments: &str) -> Option<Self> {
        if Command::new("tmux").arg("-V").output().is_err() {
            eprintln!("no tmux here (apt-get install tmux): the terminal was not looked at");
            return None;
        }
        let session = Self { socket };
        let command = format!(
            "cd {} && env -u CI -u NO_COLOR {environment} BURN_DEVICE=flex TERM=screen-256color {} {arguments}; \
             echo code $?; sleep 60",
            folder.display(),
            env!("CARGO_BIN_EXE_burn-lora")
        );
        let size = ["-x", "160", "-y", "48"];
        let new = ["-f", "/dev/null", "new-session", "-d", "-s", "run"];
        session.tmux(&[&new[..], &size, &[&command]].concat());
        Some(session)
    }

    fn tmux(&self, arguments: &[&str]) -> String {
        let mut command = Command::new("tmux");
        let output = command.arg("-S").arg(self.socket).args(arguments).output();
        String::from_utf8_lossy(&output.expect("started").stdout).into_owned()
    }

    fn screen(&self) -> String {
        self.tmux(&["capture-pane", "-p", "-t", "run"])
    }

    /// Waits until the screen has all parts.
    #[track_caller]
    fn wait(&self, parts: &[&str]) -> String {
        let started = Instant::now();
        loop {
            let screen = self.screen();
            if parts.iter().all(|part| screen.contains(part)) {
                return screen;
            }
            assert!(
                started.elapsed() < Duration::from_secs(90),
                "{parts:?} never came:\n{screen}"
            );
            sleep(Duration::from_millis(100));
        }
    }
}

impl Drop for Session<'_> {
    fn drop(&mut self) {
        self.tmux(&["kill-server"]);
    }
}

#[test]
fn the_dashboard_shows_the_run_and_gives_the_terminal_back() {
    let (dir, model) = setup();
    fs::write(
        dir.path().join("run.yaml"),
        "data: {path: pairs.csv}\ntraining: {steps: 100000, eval_every: 20, batch_size: 2, max_seq_len: 32}\nevaluation: {rows: 2}\n",
    )
    .expect("written");
    let socket = dir.path().join("tmux");
    let arguments = format!("train run.yaml {model} rank=2");
    let Some(session) = Session::start(dir.path(), &socket, "", &arguments) else {
        return;
    };
    let screen = session.wait(&[
        "Loss",
        "Tokens per second",
        "Gradient norm",
        "Learning Rate",
        "Valid",
        " to go",
    ]);
    #[cfg(target_os = "linux")]
    assert!(screen.contains("Memory"), "{screen}");
    assert!(!screen.contains("error"), "{screen}");

    // Stopped after a step, as the dashboard's own help says.
    session.tmux(&["send-keys", "-t", "run", "q"]);
    session.wait(&["Stop"]);
    session.tmux(&["send-keys", "-t", "run", "s"]);
    let screen = session.wait(&["RESULT {", "code 0"]);
    assert!(screen.contains("report"), "{screen}");
    assert!(
        dir.path()
            .join("output/adapter/adapter_model.safetensors")
            .is_file()
    );
    let page = fs::read_to_string(dir.path().join("output/report.html")).expect("a page");
    assert!(page.contains("aria-label=\"loss\""));
}

#[test]
fn what_is_learned_is_colored_in_a_terminal_unless_colors_are_unwanted() {
    let (dir, model) = setup();
    let arguments = format!("inspect pairs.csv --rows 1 --model {}", &model[6..]);
    for (environment, has_colors) in [("", true), ("NO_COLOR=1", false)] {
        let socket = dir.path().join(format!("colors-{has_colors}"));
        let Some(session) = Session::start(dir.path(), &socket, environment, &arguments) else {
            return;
        };
        session.wait(&["learned \"", "code 0"]);
        let screen = session.tmux(&["capture-pane", "-p", "-e", "-t", "run"]);
        let line = screen
            .lines()
            .find(|line| line.contains("learned ") && line.contains("chairs"));
        let learned = line.expect("a line");
        assert_eq!(learned.contains('\u{1b}'), has_colors, "{learned:?}");
        if has_colors {
            assert!(learned.contains("32m"), "green: {learned:?}");
        }
    }
}
