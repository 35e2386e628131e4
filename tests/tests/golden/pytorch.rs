//! PyTorch's own files: the weights of `llama_tied` written by `golden/pytorch_files.py`, which are the same model.

use std::fs;
use std::path::{Path, PathBuf};

use burn::tensor::{DType, Device};
use burn_lora::adapter::{DEFAULT_NAME, peft};
use burn_lora::transformer::{Decoder, LoadError, LoadOptions};
use burn_lora_tests::{Golden, assert_same, floats, on_each_device};
use tempfile::TempDir;

/// The command of the hostile file would make this one.
const TRAP: &str = "burn-lora-hostile-file-was-run";

/// A folder of the model's configuration and the weights of this kind.
fn folder(kind: &str) -> TempDir {
    let model = Golden::open("llama_tied").model_folder();
    folder_with(&model.join("config.json"), kind)
}

/// A folder of a configuration and the weights of this kind.
fn folder_with(config: &Path, kind: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::copy(config, folder.path().join(config.file_name().unwrap())).unwrap();
    let weights = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/pytorch");
    for entry in fs::read_dir(weights.join(kind)).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), folder.path().join(entry.file_name())).unwrap();
    }
    folder
}

fn load(folder: &Path, device: &Device) -> Result<Decoder, LoadError> {
    Decoder::load(folder, &LoadOptions::new(DType::F32, device.clone()))
}

#[test]
fn pytorch_files_of_every_kind_load_to_the_same_model() {
    on_each_device(|device| {
        let golden = Golden::open("llama_tied");
        let logits = |decoder: Decoder| floats(decoder.logits(golden.input_ids(&device)));
        let expected = logits(golden.base(&device));
        for kind in ["single", "sharded", "legacy"] {
            let decoder = load(folder(kind).path(), &device).unwrap();
            assert_same(kind, &logits(decoder), &expected);
        }
    });
}

#[test]
fn safetensors_come_before_pytorch_files() {
    let folder = folder("single");
    fs::write(folder.path().join("model.safetensors"), "no weights").unwrap();
    let error = load(folder.path(), &Device::flex()).unwrap_err();
    assert!(
        matches!(&error, LoadError::Damaged { path, .. } if path.ends_with("model.safetensors"))
    );
}

#[test]
fn a_hostile_file_is_an_error_and_runs_nothing() {
    let folder = folder("hostile");
    let result = load(folder.path(), &Device::flex());
    assert!(!Path::new(TRAP).exists());
    // The object that would have run the command is no tensor; all the others are there.
    if let Err(error) = result {
        assert!(
            matches!(
                error,
                LoadError::Damaged { .. } | LoadError::Mismatch { .. }
            ),
            "{error}"
        );
    }
}

#[test]
fn damaged_files_are_errors() {
    let weights = |folder: &TempDir| -> PathBuf { folder.path().join("pytorch_model.bin") };
    let device = Device::flex();
    for kind in ["single", "legacy"] {
        let folder = folder(kind);
        let bytes = fs::read(weights(&folder)).unwrap();
        for length in [0, 1, 10, 100, bytes.len() / 2, bytes.len() - 1] {
            fs::write(weights(&folder), &bytes[..length]).unwrap();
            let error = load(folder.path(), &device).unwrap_err();
            assert!(
                error.to_string().contains("pytorch_model.bin"),
                "{kind}, {length}: {error}"
            );
        }
        // One byte after the other, in steps that meet names, sizes and numbers alike.
        for at in (0..bytes.len()).step_by(311) {
            let mut changed = bytes.clone();
            changed[at] ^= 0x15;
            fs::write(weights(&folder), changed).unwrap();
            let _ = load(folder.path(), &device);
        }
    }
}

#[test]
fn an_absent_shard_is_named() {
    let folder = folder("sharded");
    fs::remove_file(folder.path().join("pytorch_model-00002-of-00002.bin")).unwrap();
    let error = load(folder.path(), &Device::flex())
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("`pytorch_model-00002-of-00002.bin` is not in the folder"),
        "{error}"
    );
}

#[test]
fn an_adapter_that_an_older_peft_wrote_is_the_same_adapter() {
    on_each_device(|device| {
        let golden = Golden::open("llama_tied");
        let config = golden.adapter_folder().join("adapter_config.json");
        let folder = folder_with(&config, "adapter");
        let (tuned, _) = peft::load(golden.base(&device), DEFAULT_NAME, folder.path()).unwrap();
        let expected = floats(golden.trained(&device).logits(golden.input_ids(&device)));
        let actual = floats(tuned.logits(golden.input_ids(&device)));
        assert_same("adapter", &actual, &expected);
        let path = folder.path().join("adapter_model.bin");
        fs::write(path, "no weights").unwrap();
        let error = peft::load(golden.base(&device), DEFAULT_NAME, folder.path()).unwrap_err();
        assert!(error.to_string().contains("adapter_model.bin"), "{error}");
    });
}
