//! What the command says: results on the standard output, errors and progress on the standard error.

use std::io::{IsTerminal, Write};

use serde_json::{Value, json};

use crate::failure::Failure;

/// The form of the results.
#[derive(Debug, Clone, Copy)]
pub struct Output {
    json: bool,
}

impl Output {
    /// One JSON object, or lines for people.
    pub fn new(json: bool) -> Self {
        Self { json }
    }

    /// Whether the result is an object.
    pub fn is_json(&self) -> bool {
        self.json
    }

    /// Whether lines may be colored: on a terminal, unless NO_COLOR is set.
    pub fn has_colors(&self) -> bool {
        std::io::stdout().is_terminal()
            && std::env::var_os("NO_COLOR").is_none_or(|off| off.is_empty())
    }

    /// Prints the result of a command, `lines` for people or `object` for programs.
    pub fn done(&self, lines: &[String], object: &Value) {
        match self.json {
            true => print(&object.to_string()),
            false => print(&lines.join("\n")),
        }
    }

    /// Prints a remark that does not belong to the result.
    pub fn warn(&self, warning: &str) {
        let _ = writeln!(std::io::stderr(), "warning: {warning}");
    }

    /// Prints an error with its causes.
    pub fn failed(&self, failure: &Failure) {
        let chain = failure.chain();
        let mut stderr = std::io::stderr().lock();
        for (index, text) in chain.iter().enumerate() {
            let label = if index == 0 { "error" } else { "caused by" };
            let _ = writeln!(stderr, "{label}: {text}");
        }
        if self.json {
            let error = json!({
                "message": chain[0], "causes": chain[1..], "exit_code": failure.kind() as u8,
            });
            print(&json!({ "error": error }).to_string());
        }
    }
}

/// A reader that has gone away wants no more, which is no error.
fn print(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}
