//! `burn-lora completions`: what a shell needs to complete the command line.

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use crate::arguments::Arguments;
use crate::failure::Failure;

/// The options of `completions`.
#[derive(Debug, Args)]
pub struct CompletionsOptions {
    /// For which shell
    #[arg(value_enum)]
    pub shell: Shell,
}

/// Runs the command.
pub fn run(options: &CompletionsOptions) -> Result<(), Failure> {
    let mut command = Arguments::command();
    clap_complete::generate(
        options.shell,
        &mut command,
        "burn-lora",
        &mut std::io::stdout(),
    );
    Ok(())
}
