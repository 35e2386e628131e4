//! The `burn-lora` command.

mod arguments;
mod commands;
mod compute;
#[cfg(test)]
mod documented;
mod failure;
mod model;
mod output;
mod progress;
mod source;
mod units;

use std::process::ExitCode;

use arguments::{Arguments, Command};
use clap::Parser;
use output::Output;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let output = Output::new(arguments.json);
    let mut code = ExitCode::SUCCESS;
    let result = match arguments.command {
        Command::Train(options) => {
            commands::train::run(&options, &output).map(|ended| code = ended)
        }
        Command::Evaluate(options) => commands::evaluate::run(&options, &output),
        Command::Generate(options) => commands::generate::run(&options, &output),
        Command::Merge(options) => commands::merge::run(&options, &output),
        Command::Combine(options) => commands::combine::run(&options, &output),
        Command::Convert(options) => commands::convert::run(&options, &output),
        Command::Extract(options) => commands::extract::run(&options, &output),
        Command::Plan(options) => commands::plan::run(&options, &output),
        Command::Inspect(options) => commands::inspect::run(&options, &output),
        Command::Recipes(options) => commands::recipes::run(&options, &output),
        Command::Score(options) => commands::score::run(&options, &output),
        Command::Doctor(options) => commands::doctor::run(&options, &output),
        Command::Completions(options) => commands::completions::run(&options, &output),
    };
    match result {
        Ok(()) => code,
        Err(failure) => {
            output.failed(&failure);
            failure.kind().into()
        }
    }
}
