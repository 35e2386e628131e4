//! Whole runs on a tiny model.

mod lifetime;
mod starts;

use std::fs;
use std::path::Path;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::optim::{GradientsParams, OptimizerRecord};
use burn::store::ModuleRecord;
use burn::tensor::{DType, Device, Tensor, TensorData};
use burn::train::TrainStep;
use burn_lora_adapter::{AdapterOnly, LoraConfig, attach};
use burn_lora_data::{Batch, Example, SpecialTokens, Tokenizer, pack};
use burn_lora_transformer::{Decoder, LoadOptions};

use crate::step::{StepInput, Trainee};
use crate::testing::{SharedSink, alone, examples, tiny_llama, values};
use crate::{
    Causal, EvaluateOptions, Observer, Outcome, TrainConfig, TrainData, TrainError, Warmup,
    evaluate, finetune, train,
};

const RANK: usize = 4;

fn adapted() -> Decoder {
    let config = LoraConfig::new(RANK, 8.0).with_dropout(0.1).with_seed(3);
    attach(tiny_llama(), "default", &config).expect("all layers are linear")
}

fn config() -> TrainConfig {
    TrainConfig {
        steps: 12,
        batch_size: 3,
        max_seq_len: 16,
        learning_rate: 2e-2,
        warmup: Warmup::Steps(2),
        eval_every: Some(4),
        log_every: 4,
        ..TrainConfig::default()
    }
}

fn data() -> TrainData {
    TrainData {
        train: examples(),
        valid: examples()[..3].to_vec(),
        pad: 0,
    }
}

fn run(config: &TrainConfig) -> Outcome<Decoder> {
    finetune(adapted(), config, data(), Observer::Nobody).expect("it trains")
}

fn is_adapter(path: &str) -> bool {
    path.contains(".lora.")
}

#[test]
fn finetuning_lowers_the_loss_and_leaves_the_base_bit_for_bit() {
    let _turn = alone();
    let model = adapted();
    let before = values(&model);
    let sink = SharedSink::default();
    let observer = Observer::Lines(Box::new(sink.clone()));
    let outcome = finetune(model, &config(), data(), observer).expect("it trains");

    let after = values(&outcome.model);
    assert_eq!(before.len(), after.len());
    for (path, value) in &before {
        assert_eq!(value != &after[path], is_adapter(path), "{path}");
    }
    assert_eq!(outcome.steps, 12);
    assert!(outcome.tokens > outcome.learned_tokens && outcome.learned_tokens > 0);
    assert!(outcome.tokens_per_second > 0.0 && outcome.first_step_seconds > 0.0);

    let text = sink.text();
    let losses: Vec<f64> = text
        .lines()
        .filter_map(|line| {
            line.split_once("validation loss ")?
                .1
                .split(' ')
                .next()?
                .parse()
                .ok()
        })
        .collect();
    assert_eq!(losses.len(), 3, "{text}");
    assert!(losses[2] < losses[0] - 0.1, "{text}");
    assert!((losses[2] - outcome.valid_loss.expect("validated")).abs() < 1e-3);
    let starts: Vec<&str> = text.lines().map(|line| &line[..10]).collect();
    let expected = [
        "step  1/12",
        "step  4/12",
        "step  4/12",
        "step  8/12",
        "step  8/12",
        "step 12/12",
        "step 12/12",
    ];
    assert_eq!(starts, expected, "{text}");
}

#[test]
fn all_parameters_of_an_open_decoder_are_trained() {
    let _turn = alone();
    let model = tiny_llama();
    let error =
        train(model.clone(), &config(), data(), Observer::Nobody).expect_err("it is frozen");
    assert!(matches!(error, TrainError::NothingTrainable));
    let error =
        finetune(model.clone(), &config(), data(), Observer::Nobody).expect_err("no adapter");
    assert!(matches!(error, TrainError::NothingTrainable));

    let before = values(&model);
    let model = model.set_require_grad(true);
    let outcome = train(model, &config(), data(), Observer::Nobody).expect("it trains");
    let after = values(&outcome.model);
    for (path, value) in &before {
        assert_ne!(value, &after[path], "{path}");
    }
}

#[test]
fn a_half_precision_base_is_trained_by_f32_adapters() {
    let _turn = alone();
    let folder = tempfile::tempdir().expect("a folder");
    tiny_llama().save(folder.path(), DType::F32).expect("saved");
    for dtype in [DType::BF16, DType::F16] {
        let base = Decoder::load(folder.path(), &LoadOptions::new(dtype, Device::flex()));
        let lora = LoraConfig::new(RANK, 8.0).with_seed(3);
        let model = attach(base.expect("loaded"), "default", &lora).expect("it attaches");
        let before = values(&model);
        let outcome = finetune(model, &config(), data(), Observer::Nobody).expect("it trains");
        let after = values(&outcome.model);
        for (path, value) in &after {
            let expected = if is_adapter(path) { DType::F32 } else { dtype };
            assert_eq!(value.dtype(), expected, "{path}");
            assert_eq!(
                value != &before[path],
                is_adapter(path),
                "{path} in {dtype:?}"
            );
        }
    }
}

/// The gradients of one step, by path.
fn gradients(batches: &[Batch]) -> Vec<(String, TensorData)> {
    struct Reader {
        path: Vec<String>,
        grads: GradientsParams,
        read: Vec<(String, TensorData)>,
    }
    impl ModuleVisitor for Reader {
        fn enter_module(&mut self, name: &str, _container: &str) {
            self.path.push(name.to_string());
        }
        fn exit_module(&mut self, _name: &str, _container: &str) {
            self.path.pop();
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let grad = self
                .grads
                .remove::<D>(param.id)
                .expect("every adapter parameter has a gradient");
            self.read.push((self.path.join("."), grad.into_data()));
        }
    }
    // B starts at zero, where A has no gradient.
    struct Nudge;
    impl ModuleMapper for Nudge {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            param.map(|value| value + 0.05)
        }
    }
    let config = LoraConfig::new(RANK, 8.0).with_seed(3);
    let model = attach(tiny_llama(), "default", &config).expect("all layers are linear");
    let shown = AdapterOnly::new(model).map(&mut Nudge).train();
    let task = Causal { pad: 0 };
    let trainee = Trainee::new(shown, AdapterOnly::inner, task, None);
    let device = Device::flex().autodiff();
    let batches = batches
        .iter()
        .map(|batch| batch.to_device(&device))
        .collect();
    let grads = TrainStep::step(&trainee, StepInput { batches }).grads;
    let mut reader = Reader {
        path: Vec::new(),
        grads,
        read: Vec::new(),
    };
    trainee.visit(&mut reader);
    assert!(
        reader.grads.is_empty(),
        "only adapter parameters have gradients"
    );
    reader.read
}

#[test]
fn accumulated_batches_are_one_large_batch() {
    // The batches learn 2, 7 and 15 tokens, so a mean of their means would differ.
    let all = examples();
    let batch = |examples: &[Example]| Batch::new(examples, 0);
    let whole = gradients(&[batch(&all)]);
    let parts = gradients(&[batch(&all[..1]), batch(&all[1..3]), batch(&all[3..])]);
    assert_eq!(whole.len(), 2 * 7 * 2);
    assert_equal(&whole, &parts);
    let largest = whole
        .iter()
        .flat_map(|(_, grad)| grad.iter::<f32>().collect::<Vec<_>>());
    assert!(
        largest.fold(0.0_f32, |a, b| a.max(b.abs())) > 1e-2,
        "gradients to compare"
    );
}

fn assert_equal(left: &[(String, TensorData)], right: &[(String, TensorData)]) {
    for ((path, left), (_, right)) in left.iter().zip(right) {
        for (left, right) in left.iter::<f32>().zip(right.iter::<f32>()) {
            assert!((left - right).abs() < 1e-5, "{path}: {left} and {right}");
        }
    }
}

#[test]
fn packed_rows_have_the_gradients_of_their_examples() {
    let all = examples();
    let lengths: Vec<usize> = all.iter().map(Example::len).collect();
    let rows = pack(&lengths, 13).expect("all are shorter");
    assert!(rows.len() < all.len() / 2 + 1, "rows of several examples");
    let rows: Vec<Vec<&Example>> = rows
        .into_iter()
        .map(|row| row.into_iter().map(|index| &all[index]).collect())
        .collect();
    let packed = Batch::packed(&rows, 0);
    assert!(packed.is_packed());
    let alone = gradients(&[Batch::new(&all, 0)]);
    assert_equal(&alone, &gradients(&[packed]));
    // Rows that see each other have others, or the comparison would say nothing.
    let mut blind = Batch::packed(&rows, 0);
    blind.documents = blind.lengths.iter().map(|length| vec![*length]).collect();
    let blind = gradients(&[blind]);
    let differs = |(a, b): (&(String, TensorData), &(String, TensorData))| {
        a.1.iter::<f32>()
            .zip(b.1.iter::<f32>())
            .any(|(a, b)| (a - b).abs() > 1e-3)
    };
    assert!(alone.iter().zip(&blind).any(differs));
}

#[test]
fn a_packed_run_learns_and_resumes() {
    let _turn = alone();
    let folder = tempfile::tempdir().expect("a folder");
    let config = TrainConfig {
        packing: true,
        max_seq_len: 13,
        batch_size: 2,
        save_every: Some(4),
        keep: 3,
        output_dir: Some(folder.path().to_path_buf()),
        ..config()
    };
    let whole = run(&config);
    forget_after(4, folder.path());
    let resumed = run(&TrainConfig {
        resume: true,
        ..config
    });
    assert_eq!(values(&whole.model), values(&resumed.model));
    assert!(whole.train_loss.is_some_and(f64::is_finite));
}

#[test]
fn checkpoints_hold_adapters_only() {
    let _turn = alone();
    let folder = tempfile::tempdir().expect("a folder");
    let config = TrainConfig {
        save_every: Some(4),
        output_dir: Some(folder.path().to_path_buf()),
        ..config()
    };
    let outcome = run(&config);
    let checkpoints = folder.path().join("checkpoints");
    assert!(!checkpoints.join("step-4").exists(), "two are kept");
    assert!(folder.path().join("logs/facts.jsonl").is_file());

    let base = values(&tiny_llama());
    for step in ["step-8", "step-12"] {
        let folder = checkpoints.join(step);
        let names: Vec<_> = fs::read_dir(&folder)
            .expect("a folder")
            .flatten()
            .map(|e| e.file_name())
            .collect();
        assert_eq!(names.len(), 3, "{names:?}");
        // Two factors for each of seven projections in two layers; two moments for each factor.
        let record = ModuleRecord::load(folder.join("model.bpk")).expect("a record");
        assert_eq!(record.len(), 28);
        let record = OptimizerRecord::load(folder.join("optimizer.bpk")).expect("a record");
        assert_eq!(record.len(), 56);
        for file in ["model.bpk", "optimizer.bpk"] {
            let bytes = fs::read(folder.join(file)).expect("a file");
            for (path, value) in &base {
                // A norm's weight is all ones, which other tensors may well hold.
                let value = value.as_bytes();
                let found = !path.contains("norm")
                    && bytes.windows(32).any(|window| window == &value[..32]);
                assert!(!found, "{path} in {step}/{file}");
            }
        }
    }

    let last = ModuleRecord::load(checkpoints.join("step-12/model.bpk")).expect("a record");
    let restored = AdapterOnly::new(adapted()).load_record(last).into_inner();
    assert_eq!(values(&restored), values(&outcome.model));
}

/// Leaves only what was there after `step`.
fn forget_after(step: usize, folder: &Path) {
    for entry in fs::read_dir(folder.join("checkpoints"))
        .expect("a folder")
        .flatten()
    {
        let name = entry.file_name().to_string_lossy().into_owned();
        let later = name
            .strip_prefix("step-")
            .and_then(|s| s.parse().ok())
            .is_some_and(|s: usize| s > step);
        if later {
            fs::remove_dir_all(entry.path()).expect("removed");
        }
    }
}

#[test]
fn a_resumed_run_is_the_uninterrupted_one_bit_for_bit() {
    let _turn = alone();
    let folder = tempfile::tempdir().expect("a folder");
    let config = TrainConfig {
        save_every: Some(4),
        keep: 3,
        grad_accumulation: 2,
        output_dir: Some(folder.path().to_path_buf()),
        ..config()
    };
    let whole = run(&config);
    forget_after(4, folder.path());
    let resumed = run(&TrainConfig {
        resume: true,
        ..config.clone()
    });
    assert_eq!(values(&whole.model), values(&resumed.model));
    assert_eq!(
        (whole.steps, whole.valid_loss),
        (resumed.steps, resumed.valid_loss)
    );

    let other_rank =
        attach(tiny_llama(), "default", &LoraConfig::new(2, 8.0)).expect("it attaches");
    let config = TrainConfig {
        resume: true,
        ..config
    };
    let error =
        finetune(other_rank, &config, data(), Observer::Nobody).expect_err("another adapter");
    assert!(matches!(error, TrainError::Checkpoint { .. }), "{error}");
}

#[test]
fn a_loss_that_is_not_finite_is_an_error() {
    struct Spoil;
    impl ModuleMapper for Spoil {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            param.map(|value| value.mul_scalar(f32::NAN))
        }
    }
    let _turn = alone();
    let model = AdapterOnly::new(adapted()).map(&mut Spoil).into_inner();
    let error = finetune(model, &config(), data(), Observer::Nobody).expect_err("NaN");
    let TrainError::NotFinite { split, step, loss } = error else {
        panic!("{error}")
    };
    assert_eq!((split, step), ("training", 1));
    assert!(loss.is_nan());
}

#[test]
fn examples_that_do_not_fit_are_all_named_before_the_first_step() {
    let too_long = Example::new(vec![99; 40], 1).expect("valid");
    let data = TrainData {
        train: vec![too_long],
        valid: Vec::new(),
        pad: 0,
    };
    let error = finetune(adapted(), &config(), data, Observer::Nobody).expect_err("too long");
    let TrainError::Config { faults } = error else {
        panic!("{error}")
    };
    assert_eq!(faults.len(), 3, "{faults:?}");
}

#[test]
fn an_output_folder_that_cannot_be_made_is_an_error() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let config = TrainConfig {
        output_dir: Some(file.path().join("run")),
        ..config()
    };
    let error = finetune(adapted(), &config, data(), Observer::Nobody).expect_err("it is a file");
    assert!(matches!(error, TrainError::Io { .. }), "{error}");
}

fn tokenizer() -> Tokenizer {
    let words = (0..16)
        .map(|id| format!("\"w{id}\": {id}"))
        .collect::<Vec<_>>()
        .join(", ");
    let json = format!(
        r#"{{"version": "1.0", "truncation": null, "padding": null, "added_tokens": [
            {{"id": 1, "content": "w1", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true}}],
            "normalizer": null, "pre_tokenizer": {{"type": "WhitespaceSplit"}}, "post_processor": null, "decoder": null,
            "model": {{"type": "WordLevel", "vocab": {{{words}}}, "unk_token": "w0"}}}}"#
    );
    let inner = tokenizers::Tokenizer::from_bytes(json).expect("a tokenizer");
    Tokenizer::new(inner, SpecialTokens::new(1)).expect("a tokenizer")
}

#[test]
fn a_task_is_learned_by_heart_without_validation() {
    let _turn = alone();
    let tokenizer = tokenizer();
    let options = EvaluateOptions {
        batch_size: 3,
        ..EvaluateOptions::default()
    };
    let model = adapted();
    let before = evaluate(&model, &tokenizer, &examples(), &options).expect("evaluated");
    let config = TrainConfig {
        steps: 150,
        eval_every: None,
        ..config()
    };
    let data = TrainData {
        valid: Vec::new(),
        ..data()
    };
    let outcome = finetune(model, &config, data, Observer::Nobody).expect("it trains");
    assert_eq!(outcome.valid_loss, None);
    let after = evaluate(&outcome.model, &tokenizer, &examples(), &options).expect("evaluated");
    assert!(before.exact_match < Some(0.3), "{before:?}");
    assert_eq!(after.exact_match, Some(1.0), "{after:?}");
    assert!(after.loss < before.loss / 4.0, "{after:?}");
    assert_eq!(after.perplexity, after.loss.exp());
    assert_eq!(after.completions[0].prompt, "w3 w2");
    assert_eq!(after.completions[0].generated, "w4");
}
