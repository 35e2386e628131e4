//! The command line.

use clap::{Parser, Subcommand};

use crate::commands::combine::CombineOptions;
use crate::commands::completions::CompletionsOptions;
use crate::commands::convert::ConvertOptions;
use crate::commands::doctor::DoctorOptions;
use crate::commands::evaluate::EvaluateOptions;
use crate::commands::extract::ExtractOptions;
use crate::commands::generate::GenerateOptions;
use crate::commands::inspect::InspectOptions;
use crate::commands::merge::MergeOptions;
use crate::commands::plan::PlanArguments;
use crate::commands::recipes::RecipesOptions;
use crate::commands::score::ScoreOptions;
use crate::commands::train::TrainOptions;

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
    /// Train an adapter as a configuration says
    Train(TrainOptions),
    /// Measure a model on a data set
    Evaluate(EvaluateOptions),
    /// Continue prompts, or hold a conversation
    Generate(GenerateOptions),
    /// Work an adapter into the weights of its model
    Merge(MergeOptions),
    /// Make one LoRA adapter of several
    Combine(CombineOptions),
    /// Make a PEFT folder of a LoRA adapter from mlx-lm or loralib, or one that more runtimes read
    Convert(ConvertOptions),
    /// Make a LoRA adapter of the difference between a model and its fine-tuned self
    Extract(ExtractOptions),
    /// Count what a run will take: parameters, disk, memory by part, work and time of a step; nothing is loaded
    Plan(PlanArguments),
    /// Show a data set as a model will see it, row by row; a checkpoint; or an adapter
    Inspect(InspectOptions),
    /// Configurations to begin with
    Recipes(RecipesOptions),
    /// Write what a model computes for given texts or tokens, to compare it with other programs
    Score(ScoreOptions),
    /// Look at what this build and this machine can do, and make ready for a model
    Doctor(DoctorOptions),
    /// Write what a shell needs to complete the command line
    Completions(CompletionsOptions),
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
