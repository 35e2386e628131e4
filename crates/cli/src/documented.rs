//! Whether `docs/command.md` speaks of this command line.

use clap::{CommandFactory, Parser};

use crate::arguments::Arguments;

const DOCS: &str = include_str!("../../../docs/command.md");
const README: &str = include_str!("../../../README.md");

/// The words of a line as a shell sees them, as far as examples use one.
fn words(line: &str) -> Vec<String> {
    let line = line.split(" #").next().unwrap_or(line);
    let mut words = Vec::new();
    for (index, part) in line.split('"').enumerate() {
        match index % 2 {
            0 => words.extend(part.split_whitespace().map(String::from)),
            _ => words.push(part.to_string()),
        }
    }
    words
}

fn examples(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter_map(|line| {
        let line = line.strip_prefix("    ")?;
        line.starts_with("burn-lora ").then_some(line)
    })
}

#[test]
fn every_example_is_a_command_line() {
    let mut seen = Vec::new();
    for line in examples(DOCS).chain(examples(README)) {
        if let Err(error) = Arguments::try_parse_from(words(line)) {
            panic!("{line}: {error}");
        }
        seen.extend(words(line).get(1).cloned());
    }
    for command in Arguments::command().get_subcommands() {
        let name = command.get_name();
        assert!(
            name == "help" || seen.iter().any(|word| word == name),
            "{name} has no example"
        );
        assert!(
            DOCS.contains(&format!("\n## {name}\n")),
            "{name} has no section"
        );
    }
}

#[test]
fn every_option_that_is_named_is_one() {
    let mut command = Arguments::command();
    command.build();
    let mut section = String::new();
    for line in DOCS.lines() {
        if let Some(name) = line.strip_prefix("## ") {
            section = name.to_string();
        }
        // The whole command's own options, above the first section.
        let commands = command.get_subcommands();
        let of = commands.filter(|command| section.is_empty() || command.get_name() == section);
        let options: Vec<String> = of
            .flat_map(|command| command.get_arguments())
            .filter_map(|argument| argument.get_long().map(String::from))
            .collect();
        for part in line.split("--").skip(1) {
            let end = part.find(|c: char| !c.is_ascii_alphanumeric() && c != '-');
            let name = &part[..end.unwrap_or(part.len())];
            // Of cargo, of TensorBoard; and the rule of a table.
            let foreign = ["path", "features", "logdir"].contains(&name);
            let is_rule = name.is_empty() || name.starts_with('-');
            assert!(
                foreign || is_rule || name == "help" || options.iter().any(|option| option == name),
                "{section}: --{name} is no option"
            );
        }
    }
}

#[test]
fn the_exit_codes_are_those_of_the_help() {
    for text in [DOCS, README] {
        for line in crate::failure::EXIT_CODES.lines().skip(1) {
            let line = line.trim();
            let (code, meaning) = line.split_once("  ").expect("a code and what it means");
            let row = format!("| {code} | {meaning} |");
            let is_there = text.contains(&row) || code == "0";
            assert!(is_there, "{row}");
        }
    }
}
