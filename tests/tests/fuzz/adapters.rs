use std::fs;
use std::path::Path;

use burn::tensor::Device;
use burn_lora::adapter::{DEFAULT_NAME, FactorSet, peft};
use burn_lora_tests::Golden;
use proptest::prelude::*;

use crate::{config, edited, edits, is_readable};

const CASES: [&str; 6] = ["llama", "dora", "adalora", "vera", "lokr", "lora_tokens"];

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
    "1e400",
    "\"r\": 0",
    "\"lora_alpha\": -3",
    "\"peft_type\": \"LOKR\"",
    "\"target_modules\": \"(\"",
    "\"rank_pattern\": {\"^\": 0}",
    "\"F16\"",
    "\"BF16\"",
    "\"I64\"",
    "[0,0]",
    "18446744073709551615",
    "\"data_offsets\"",
    "\"shape\": []",
];

fn folder(case: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("golden")
        .join(case)
        .join("adapter")
}

proptest! {
    #![proptest_config(config(250))]

    #[test]
    fn damaged_adapters_are_read_or_refused(
        case in 0..CASES.len(),
        config in edits(WORDS),
        weights in edits(WORDS),
        which in 0..3_u8,
    ) {
        let from = folder(CASES[case]);
        let dir = tempfile::tempdir().unwrap();
        for (name, edits, is_meant) in [
            ("adapter_config.json", &config, which != 1),
            ("adapter_model.safetensors", &weights, which != 0),
        ] {
            let mut bytes = fs::read(from.join(name)).unwrap();
            if is_meant {
                // The header of a file of tensors is what there is to damage.
                let end = bytes.len().min(3000);
                let head = edited(&bytes[..end], edits);
                bytes = [head, bytes.split_off(end)].concat();
            }
            fs::write(dir.path().join(name), bytes).unwrap();
        }
        if let Err(error) = peft::read_config(dir.path()) {
            prop_assert!(is_readable(&error), "{error}");
        }
        if let Err(error) = peft::inspect(dir.path()) {
            prop_assert!(is_readable(&error), "{error}");
        }
        if let Err(error) = FactorSet::load(dir.path()) {
            prop_assert!(is_readable(&error), "{error}");
        }
    }
}

proptest! {
    #![proptest_config(config(60))]

    #[test]
    fn a_damaged_adapter_never_reaches_a_model(edits in edits(WORDS), is_config in any::<bool>()) {
        let from = folder("llama");
        let dir = tempfile::tempdir().unwrap();
        for name in ["adapter_config.json", "adapter_model.safetensors"] {
            let bytes = fs::read(from.join(name)).unwrap();
            let bytes = match is_config == (name == "adapter_config.json") {
                true => edited(&bytes, &edits),
                false => bytes,
            };
            fs::write(dir.path().join(name), bytes).unwrap();
        }
        let base = Golden::open("llama").base(&Device::flex());
        if let Err(error) = peft::load(base, DEFAULT_NAME, dir.path()) {
            prop_assert!(is_readable(&error), "{error}");
        }
    }
}
