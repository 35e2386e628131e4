//! The command line.

use clap::{Parser, Subcommand};

use crate::commands::score::ScoreOptions;

/// Fine-tune Transformers by LoRA and its relatives, in Rust, on Burn.
#[derive(Debug, Parser)]
#[command(name = "burn-lora", version, max_term_width = 100, after_help = crate::failure::EXIT_CODES)]
pub struct Arguments {
    /// What to do
    #[command(subcommand)]
    pub command: Command,

    /// Print one JSON object on the standard output, in success and in failure
    #[arg(long, global = true)]
    pub json: bool,
}

/// One file in `commands` for each.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Write what a model computes for given texts or tokens, to compare it with other programs
    Score(ScoreOptions),
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_options_do_not_contradict_each_other() {
        Arguments::command().debug_assert();
    }
}
