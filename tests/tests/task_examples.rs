//! The examples of the tasks as a user starts them: what they measure becomes better.
//!
//! `cargo test --workspace` builds the examples before it runs the tests.

use std::process::Command;

/// What an example prints of a metric, before and after; of the last model, if there are several.
fn change(example: &str, metric: &str) -> [f64; 2] {
    let tests = std::env::current_exe().expect("a test has a path");
    // target/<profile>/deps/<this test> stands beside target/<profile>/examples/<example>.
    let profile = tests.ancestors().nth(2).expect("a target folder");
    let output = Command::new(profile.join("examples").join(example))
        .env_remove("BURN_DEVICE")
        .output()
        .expect("cargo has built the example");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{error}");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let line = text.lines().rfind(|line| line.starts_with(metric));
    let line = line.unwrap_or_else(|| panic!("{example} tells no {metric}: {text}"));
    let (before, after) = line[metric.len()..].split_once("->").expect("a change");
    [before, after].map(|number| number.trim().parse().expect("a number"))
}

#[test]
fn classes_are_told_apart() {
    let [before, after] = change("classify", "accuracy");
    assert!(before < 0.8 && after > 0.95, "{before} {after}");
}

#[test]
fn numbers_are_learned() {
    let [before, after] = change("regress", "pearson");
    assert!(before < 0.7 && after > 0.9, "{before} {after}");
}

#[test]
fn words_are_tagged() {
    let [before, after] = change("tag", "f1");
    assert!(before < 0.5 && after > 0.95, "{before} {after}");
}

#[test]
fn masks_are_filled() {
    let [before, after] = change("mask", "loss");
    assert!(before > 2.5 && after < 1.5, "{before} {after}");
}

#[test]
fn texts_are_written() {
    let [before, after] = change("translate", "loss");
    assert!(before > 1.0 && after < 0.3, "{before} {after}");
}

#[test]
fn preferences_are_learned() {
    let [before, after] = change("prefer", "rewards/margins");
    assert!(after > before + 0.05, "{before} {after}");
}

#[test]
fn answers_are_learned() {
    let [before, after] = change("chat", "loss");
    assert!(before > 1.0 && after < 0.2, "{before} {after}");
}
