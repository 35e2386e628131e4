//! Runs whose adapters start from the weights or from data, over a base that may have lost what the factors hold.

use burn_lora_adapter::peft::{PeftMetadata, WEIGHTS_FILE, save};
use burn_lora_adapter::{INITIALIZATIONS, LoraInit};

use super::*;
use crate::{Stopped, attach_adapter};

/// The model as a process finds it that starts, or goes on.
fn started(word: &str, config: &TrainConfig) -> (Decoder, LoraConfig) {
    let init: LoraInit = word.parse().expect("a word of the table");
    let lora = LoraConfig::new(2, 4.0)
        .with_dropout(0.1)
        .with_seed(3)
        .with_init(init);
    attach_adapter(tiny_llama(), "default", &lora, &data(), config, 2).expect("it attaches")
}

#[test]
fn a_run_from_any_start_that_was_stopped_ends_with_the_same_bytes() {
    let _turn = alone();
    let plain = values(&tiny_llama());
    for info in INITIALIZATIONS {
        let word = info.word;
        let run = |config: &TrainConfig| {
            let (model, lora) = started(word, config);
            let outcome = finetune(model, config, data(), Observer::Nobody).expect("it trains");
            (outcome, lora)
        };
        let bytes = |outcome: &Outcome<Decoder>, lora: &LoraConfig| {
            let folder = tempfile::tempdir().expect("a folder");
            let metadata = PeftMetadata::default();
            save(&outcome.model, "default", lora, &metadata, folder.path()).expect("saved");
            fs::read(folder.path().join(WEIGHTS_FILE)).expect("the weights")
        };
        let folder = tempfile::tempdir().expect("a folder");
        let config = TrainConfig {
            output_dir: Some(folder.path().to_path_buf()),
            save_every: Some(4),
            ..config()
        };
        let (whole, lora) = run(&config);
        // Where the table says that the base is another one, a resumed run has to make it again.
        let after = values(&whole.model);
        let is_changed = plain.iter().any(|(path, value)| {
            let now = after.get(path).expect("the base is there");
            now != value
        });
        assert_eq!(is_changed, info.base != "stays", "{word}");

        let other = tempfile::tempdir().expect("a folder");
        let first = TrainConfig {
            output_dir: Some(other.path().to_path_buf()),
            max_tokens: Some(whole.tokens / 2),
            ..config
        };
        let (half, _) = run(&first);
        assert_eq!(half.stopped, Some(Stopped::Tokens), "{word}");
        assert!(half.steps < whole.steps, "{word}");
        // Another process has another state of the device's random numbers.
        Device::flex().seed(977);
        let rest = TrainConfig {
            resume: true,
            max_tokens: None,
            ..first
        };
        let (resumed, again) = run(&rest);
        assert_eq!(resumed.steps, whole.steps, "{word}");
        assert_eq!(lora, again, "{word}: the ranks");
        assert_eq!(values(&whole.model), values(&resumed.model), "{word}");
        assert_eq!(whole.valid_loss, resumed.valid_loss, "{word}");
        assert!(
            bytes(&whole, &lora) == bytes(&resumed, &again),
            "{word}: the folders"
        );
    }
}
