//! `burn-lora completions`: what a shell needs to complete the command line.

use clap::{Args, CommandFactory};
use clap_complete::Shell;
use serde_json::json;

use crate::arguments::Arguments;
use crate::failure::Failure;
use crate::output::Output;

/// The options of `completions`.
#[derive(Debug, Args)]
pub struct CompletionsOptions {
    /// For which shell
    #[arg(value_enum)]
    pub shell: Shell,
}

/// Runs the command.
pub fn run(options: &CompletionsOptions, output: &Output) -> Result<(), Failure> {
    let mut command = Arguments::command();
    let mut script = Vec::new();
    clap_complete::generate(options.shell, &mut command, "burn-lora", &mut script);
    let script = String::from_utf8_lossy(&script);
    let shell = options.shell.to_string();
    let object = json!({"command": "completions", "shell": shell, "script": script});
    output.done(&[script.trim_end().to_string()], &object);
    Ok(())
}
