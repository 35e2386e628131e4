//! What training and generation must leave alone, for every method, in two decoders over f32 and bf16.

use std::fs;
use std::path::Path;

use burn::module::Module;
use burn::tensor::{DType, Device, Int, Tensor};
use burn_lora::adapter::{DEFAULT_NAME, LoraConfig, attach};
use burn_lora::data::Example;
use burn_lora::train::{Observer, TrainConfig, TrainData, finetune};
use burn_lora::transformer::{
    BottleneckConfig, BottleneckPlacement, Decoder, PART_MODULES, PromptEncoderKind, PromptInit,
    VirtualTokensConfig, WithBottlenecks, WithVirtualTokens,
};
use burn_lora_tests::{
    DECODER_ROUNDINGS, Parameters, Subject, assert_close, floats, gpt2, gradients, llama,
    methods_for, on_each_device, parameters, random,
};

use crate::common::{assert_same_parameters, bound};

/// Every method on a decoder: those of the table, and those that are parts beside the weights.
fn models(subject: &Subject<Decoder>) -> Vec<(String, Decoder)> {
    let last = subject.targets.last().unwrap();
    let configs = methods_for(&subject.config(), last).into_iter();
    let mut models: Vec<(String, Decoder)> = configs
        .map(|config: LoraConfig| {
            let model = attach(subject.base.clone(), DEFAULT_NAME, &random(&config));
            (
                format!("{}, {}", subject.name, config.method),
                model.unwrap(),
            )
        })
        .collect();
    let tokens = 2;
    for config in [
        VirtualTokensConfig::Prompt {
            tokens,
            init: PromptInit::Random,
        },
        VirtualTokensConfig::PTuning {
            tokens,
            encoder: PromptEncoderKind::Mlp,
            d_hidden: 5,
        },
        VirtualTokensConfig::Prefix {
            tokens,
            projection: None,
        },
    ] {
        let model = subject.base.clone().with_virtual_tokens(&config, 3);
        models.push((format!("{}, {config:?}", subject.name), model.unwrap()));
    }
    for placement in [BottleneckPlacement::Houlsby, BottleneckPlacement::Parallel] {
        let config = BottleneckConfig::new(4, placement);
        let model = subject.base.clone().with_bottlenecks(&config, 3);
        models.push((format!("{}, {placement:?}", subject.name), model.unwrap()));
    }
    models
}

fn on_every_decoder(check: impl Fn(&str, &Decoder, DType)) {
    on_each_device(|device| {
        for dtype in [DType::F32, DType::BF16] {
            if !device.supports_dtype(dtype) {
                continue;
            }
            let device = device.clone().autodiff();
            for subject in [llama(&device, dtype), gpt2(&device, dtype)] {
                for (name, model) in models(&subject) {
                    check(&format!("{name}, {dtype:?}"), &model.train(), dtype);
                }
            }
        }
    });
}

const ROWS: [&[i32]; 2] = [&[7, 3, 11, 45, 20, 8], &[5, 31, 2, 9]];

fn ids(rows: &[&[i32]], device: &Device) -> Tensor<2, Int> {
    let values = rows.concat();
    let ids = Tensor::<1, Int>::from_data(values.as_slice(), device);
    ids.reshape([rows.len(), rows[0].len()])
}

/// The sum of squares of what the model says at the tokens of a row.
fn loss_of(hidden: Tensor<3>, model: &Decoder) -> Tensor<1> {
    let logits = model.logits_of(hidden).cast(DType::F32);
    logits.square().sum() * 1e-3
}

fn row_loss(model: &Decoder, row: &[i32]) -> Tensor<1> {
    loss_of(model.hidden(ids(&[row], &model.device()), None), model)
}

#[track_caller]
fn assert_same_gradients(what: &str, actual: &Parameters, expected: &Parameters, dtype: DType) {
    let paths = |found: &Parameters| found.keys().cloned().collect::<Vec<_>>();
    assert_eq!(paths(actual), paths(expected), "{what}");
    for (path, expected) in expected {
        let values: Vec<f32> = expected.try_to_vec().unwrap();
        let found: Vec<f32> = actual[path].try_to_vec().unwrap();
        let largest = values.iter().fold(1.0_f32, |most, x| most.max(x.abs()));
        // Sums in another order: the last digits of the largest number.
        let apart = bound(dtype, DECODER_ROUNDINGS, &values, 1e-5 * largest);
        assert_close(&format!("{what}: {path}"), &found, &values, apart);
    }
}

// 20. Gradient checkpointing, accumulation and packing leave the gradients as they are without them.

#[test]
fn i20_recomputation_accumulation_and_packing_leave_the_gradients_alone() {
    on_every_decoder(|what, model, dtype| {
        let of = |model: &Decoder, loss: Tensor<1>| gradients(model, &loss.backward());
        let alone: Vec<Tensor<1>> = ROWS.iter().map(|row| row_loss(model, row)).collect();
        let expected = of(model, alone[0].clone() + alone[1].clone());
        assert!(!expected.is_empty(), "{what}");

        let lean = model.clone().with_recompute(usize::MAX);
        let found = of(&lean, row_loss(&lean, ROWS[0]) + row_loss(&lean, ROWS[1]));
        assert_same_gradients(what, &found, &expected, dtype);

        let parts = ROWS.map(|row| of(model, row_loss(model, row)));
        let summed = parts[0].iter().map(|(path, first)| {
            let both = first.iter::<f32>().zip(parts[1][path].iter::<f32>());
            let sum: Vec<f32> = both.map(|(a, b)| a + b).collect();
            (
                path.clone(),
                burn::tensor::TensorData::new(sum, first.shape()),
            )
        });
        assert_same_gradients(what, &summed.collect(), &expected, dtype);

        // Virtual tokens have no place in front of each document of a row; a batch with padding stands for it.
        let padded = [ROWS[0], &[ROWS[1], &[0, 0]].concat()];
        let device = model.device();
        let loss = match model.virtual_tokens() {
            None => {
                let row = ids(&[&ROWS.concat()], &device);
                loss_of(model.hidden_packed(row, &[vec![6, 4]]), model)
            }
            Some(_) => {
                let hidden = model.hidden(ids(&padded, &device), None);
                let second = hidden.clone().slice([1..2, 0..4]);
                loss_of(hidden.narrow(0, 0, 1), model) + loss_of(second, model)
            }
        };
        assert_same_gradients(what, &of(model, loss), &expected, dtype);
    });
}

// 25. Generation with the cache equals generation without it.

#[test]
fn i25_the_cache_changes_nothing() {
    on_every_decoder(|what, model, dtype| {
        let model = model.valid();
        let (row, device) = (ROWS[0], model.device());
        let expected = floats(model.logits(ids(&[row], &device)));
        let mut cache = model.new_cache(row.len());
        let parts = [0..3, 3..4, 4..6].map(|range| {
            let part = ids(&[&row[range]], &device);
            model.logits_of(model.hidden_cached(part, None, &mut cache))
        });
        let found = floats(Tensor::cat(parts.into(), 1));
        assert_close(
            what,
            &found,
            &expected,
            bound(dtype, DECODER_ROUNDINGS, &expected, 1e-4),
        );
    });
}

fn data(examples: Vec<Example>) -> TrainData {
    TrainData {
        valid: examples.clone(),
        train: examples,
        pad: 0,
    }
}

fn examples() -> Vec<Example> {
    let rows = [
        [7, 3, 11, 45, 20, 8],
        [5, 31, 2, 9, 4, 4],
        [1, 30, 4, 17, 6, 22],
    ];
    let example = |row: [u32; 6]| Example::new(row.to_vec(), 2).unwrap();
    rows.map(example).into()
}

// 23. A resumed run equals the uninterrupted one bit for bit on the CPU.

/// Leaves the checkpoints that were there after a step.
fn forget_after(step: usize, folder: &Path) {
    for entry in fs::read_dir(folder.join("checkpoints")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let number = name.strip_prefix("step-").and_then(|n| n.parse().ok());
        if number.is_some_and(|number: usize| number > step) {
            fs::remove_dir_all(path).unwrap();
        }
    }
}

#[test]
fn i23_a_resumed_run_is_the_uninterrupted_one() {
    on_every_decoder(|what, model, _| {
        let model = model.valid();
        let folder = tempfile::tempdir().unwrap();
        let config = TrainConfig {
            steps: 4,
            batch_size: 2,
            learning_rate: 1e-2,
            eval_every: Some(2),
            save_every: Some(2),
            keep: 3,
            output_dir: Some(folder.path().to_path_buf()),
            ..TrainConfig::default()
        };
        let run = |config: &TrainConfig| {
            let outcome = finetune(model.clone(), config, data(examples()), Observer::Nobody);
            outcome.unwrap().model
        };
        let whole = parameters(&run(&config));
        // What was frozen is as it was, bit for bit; of what is trained, something moved.
        let before = parameters(&model);
        let changed = whole
            .iter()
            .filter(|(path, value)| before[*path] != **value);
        let changed: Vec<&String> = changed.map(|(path, _)| path).collect();
        assert!(!changed.is_empty(), "{what}: nothing was trained");
        let is_trained = |path: &&&String| {
            path.contains(".lora.") || PART_MODULES.iter().any(|part| path.contains(part))
        };
        assert_eq!(
            changed.iter().filter(is_trained).count(),
            changed.len(),
            "{what}"
        );
        forget_after(2, folder.path());
        let resumed = run(&TrainConfig {
            resume: true,
            ..config
        });
        assert_same_parameters(what, &parameters(&resumed), &whole);
    });
}

// 24. All labels masked: a clear error, never NaN.

#[test]
fn i24_rows_without_anything_to_learn_are_refused_and_never_nan() {
    let refused = Example::new(vec![7, 3, 11], 3).unwrap_err();
    assert!(
        refused.to_string().contains("cannot be learned"),
        "{refused}"
    );
    assert!(Example::with_spans(vec![7, 3, 11], Vec::new()).is_err());
    on_every_decoder(|what, model, _| {
        // What a batch of such rows would come to.
        let hidden = model.hidden(ids(&[ROWS[0]], &model.device()), None);
        let [_, seq, d] = hidden.dims();
        let targets = ids(&[ROWS[0]], &model.device()).reshape([seq]);
        let weights = Tensor::zeros([seq], (&model.device(), DType::F32));
        let loss = model.cross_entropy_of(hidden.reshape([seq, d]), targets, weights);
        assert_eq!(floats(loss.clone()), [0.0], "{what}");
        for (path, gradient) in gradients(model, &loss.backward()) {
            let mut values = gradient.iter::<f32>();
            assert!(values.all(|value| value == 0.0), "{what}: {path}");
        }
        let config = TrainConfig {
            steps: 1,
            batch_size: 1,
            ..TrainConfig::default()
        };
        let model = model.valid();
        let nothing = finetune(model.clone(), &config, data(Vec::new()), Observer::Nobody);
        assert!(nothing.is_err(), "{what}");
        // Nor are rows of several examples behind virtual tokens.
        let packing = TrainConfig {
            packing: true,
            max_seq_len: 8,
            ..config
        };
        let packed = finetune(model.clone(), &packing, data(examples()), Observer::Nobody);
        assert_eq!(packed.is_ok(), model.virtual_tokens().is_none(), "{what}");
    });
}
