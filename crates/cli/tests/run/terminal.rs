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

impl Session<'_> {
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
    if Command::new("tmux").arg("-V").output().is_err() {
        eprintln!("no tmux here (apt-get install tmux): the dashboard was not looked at");
        return;
    }
    let (dir, model) = setup();
    fs::write(
        dir.path().join("run.yaml"),
        "data: {path: pairs.csv}\ntraining: {steps: 100000, eval_every: 20, batch_size: 2, max_seq_len: 32}\nevaluation: {rows: 2}\n",
    )
    .expect("written");
    let socket = dir.path().join("tmux");
    let session = Session { socket: &socket };
    let command = format!(
        "cd {} && env -u CI -u NO_COLOR BURN_DEVICE=flex TERM=screen-256color {} train run.yaml {model} rank=2; echo code $?; sleep 60",
        dir.path().display(),
        env!("CARGO_BIN_EXE_burn-lora")
    );
    session.tmux(&[
        "-f",
        "/dev/null",
        "new-session",
        "-d",
        "-s",
        "run",
        "-x",
        "160",
        "-y",
        "48",
        &command,
    ]);
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
