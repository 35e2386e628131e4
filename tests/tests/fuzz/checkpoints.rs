use std::fs;
use std::path::Path;

use burn::tensor::{DType, Device};
use burn_lora::adapter::LoraConfig;
use burn_lora::train::Planner;
use burn_lora::transformer::{Decoder, LoadOptions, ModelConfig, inspect_folder};
use proptest::prelude::*;

use crate::{config, edited, edits, is_readable};

const CASES: [&str; 6] = ["llama", "gpt2", "qwen3_moe", "phi3", "bert_sequence", "t5"];

const WORDS: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "\"",
    "null",
    "-1",
    "0",
    "1",
    "7",
    "65536",
    "1e400",
    "18446744073709551615",
    "true",
    "\"F32\"",
    "\"F8_E4M3\"",
    "[0,0]",
    "\"shape\": [4294967296, 4294967296]",
    "\"model_type\": \"bert\"",
    "\"hidden_size\": 3",
    "\"__metadata__\"",
];

fn folder(case: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("golden")
        .join(case)
        .join("model")
}

proptest! {
    #![proptest_config(config(250))]

    #[test]
    fn damaged_checkpoints_are_read_or_refused(
        case in 0..CASES.len(),
        edits in edits(WORDS),
        is_config in any::<bool>(),
    ) {
        let from = folder(CASES[case]);
        let dir = tempfile::tempdir().unwrap();
        for name in ["config.json", "model.safetensors"] {
            let mut bytes = fs::read(from.join(name)).unwrap();
            if is_config == (name == "config.json") {
                let end = bytes.len().min(4000);
                let head = edited(&bytes[..end], &edits);
                bytes = [head, bytes.split_off(end)].concat();
            }
            fs::write(dir.path().join(name), bytes).unwrap();
        }
        if let Err(error) = inspect_folder(dir.path()) {
            prop_assert!(is_readable(&error), "{error}");
        }
        match ModelConfig::read(dir.path()) {
            Ok(model) => {
                if let Err(error) = Planner::new(&model, &LoraConfig::new(4, 8.0)) {
                    prop_assert!(is_readable(&error), "{error}");
                }
            }
            Err(error) => prop_assert!(is_readable(&error), "{error}"),
        }
        if CASES[case] == "llama" {
            let options = LoadOptions::new(DType::F32, Device::flex());
            if let Err(error) = Decoder::load(dir.path(), &options) {
                prop_assert!(is_readable(&error), "{error}");
            }
        }
    }
}
