use burn_lora::train::{RunConfig, TrainError};
use proptest::prelude::*;

use crate::{config, edited, edits, is_readable};

const RECIPES: [&str; 3] = [
    include_str!("../../../crates/cli/recipes/chat.yaml"),
    include_str!("../../../crates/cli/recipes/completion.yaml"),
    include_str!("../../../crates/cli/recipes/gpt2-e2e.yaml"),
];

const WORDS: &[&str] = &[
    ":",
    "- ",
    "  ",
    "\n",
    "\t",
    "{",
    "}",
    "[",
    "]",
    "&a",
    "*a",
    "!!int",
    "!!binary",
    "? ",
    "|",
    ">",
    "null",
    "~",
    "1e999",
    ".nan",
    "-1",
    "18446744073709551616",
    "data:",
    "training:",
    "steps: 0",
    "rank: -3",
    "\"",
    "'",
    "#",
    "---",
    "...",
    "<<: *a",
];

proptest! {
    #![proptest_config(config(400))]

    #[test]
    fn damaged_configurations_are_read_or_refused(
        recipe in 0..RECIPES.len(),
        edits in edits(WORDS),
        settings in prop::collection::vec("[a-z_.]{0,12}=?[-a-z0-9{\\[\"'.]{0,6}", 0..3),
    ) {
        let bytes = edited(RECIPES[recipe].as_bytes(), &edits);
        let text = String::from_utf8_lossy(&bytes);
        match RunConfig::parse(&text, &settings) {
            Ok(config) => {
                prop_assert!(config.faults().is_empty());
                let again = RunConfig::parse(&config.to_yaml(), &[]);
                prop_assert_eq!(again.unwrap(), config);
            }
            Err(TrainError::Config { faults }) => {
                prop_assert!(!faults.is_empty());
                prop_assert!(faults.iter().all(|fault| !fault.is_empty()));
            }
            Err(error) => prop_assert!(is_readable(&error), "{error}"),
        }
    }
}
