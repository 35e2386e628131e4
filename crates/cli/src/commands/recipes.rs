//! `burn-lora recipes`: configurations to begin with.

use std::fs;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::json;

use crate::failure::{Failure, Kind};
use crate::output::Output;

macro_rules! recipes {
    ($($name:literal),* $(,)?) => {
        /// Name and text of each.
        pub const RECIPES: &[(&str, &str)] =
            &[$(($name, include_str!(concat!("../../recipes/", $name, ".yaml")))),*];
    };
}

recipes!(
    "chat",
    "classification",
    "completion",
    "dpo",
    "gpt2-e2e",
    "masked",
    "orpo",
    "prompt",
    "regression",
    "roberta-glue",
    "seq2seq",
    "tagging",
    "text",
);

/// The options of `recipes`.
#[derive(Debug, Args)]
pub struct RecipesOptions {
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Tell their names
    List,
    /// Show one
    Print {
        /// Its name
        name: String,
    },
    /// Write one to a file, to change it
    Copy {
        /// Its name
        name: String,
        /// The file, or a folder for NAME.yaml; this one if not given
        path: Option<PathBuf>,
    },
}

/// Runs the command.
pub fn run(options: &RecipesOptions, output: &Output) -> Result<(), Failure> {
    match &options.action {
        None | Some(Action::List) => list(output),
        Some(Action::Print { name }) => {
            let text = find(name)?;
            output.done(
                &[text.trim_end().to_string()],
                &json!({"name": name, "text": text}),
            );
        }
        Some(Action::Copy { name, path }) => {
            let text = find(name)?;
            let file = format!("{name}.yaml");
            let path = match path {
                Some(path) if path.is_dir() => path.join(file),
                Some(path) => path.clone(),
                None => PathBuf::from(file),
            };
            let refused = |reason: String| Failure::new(Kind::Other, reason);
            let mut file = fs::File::create_new(&path)
                .map_err(|error| refused(format!("cannot write {}: {error}", path.display())))?;
            std::io::Write::write_all(&mut file, text.as_bytes())
                .map_err(|error| refused(format!("cannot write {}: {error}", path.display())))?;
            output.done(
                &[format!("written   {}", path.display())],
                &json!({"path": path}),
            );
        }
    }
    Ok(())
}

fn list(output: &Output) {
    let what = |text: &str| -> String {
        let first = text.lines().next().unwrap_or("");
        first.trim_start_matches('#').trim().to_string()
    };
    let lines: Vec<String> = RECIPES
        .iter()
        .map(|(name, text)| format!("{name:<12} {}", what(text)))
        .collect();
    let objects = RECIPES
        .iter()
        .map(|(name, text)| json!({"name": name, "what": what(text)}));
    output.done(&lines, &json!({"recipes": objects.collect::<Vec<_>>()}));
}

fn find(name: &str) -> Result<&'static str, Failure> {
    let found = RECIPES.iter().find(|(recipe, _)| *recipe == name);
    found.map(|(_, text)| *text).ok_or_else(|| {
        let names: Vec<&str> = RECIPES.iter().map(|(name, _)| *name).collect();
        let reason = format!("no recipe is called {name}; there are {}", names.join(", "));
        Failure::new(Kind::Usage, reason)
    })
}
