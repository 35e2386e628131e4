//! Every method of PEFT on weights: its files, its outputs and its gradients.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use burn::module::Module;
use burn::optim::{AdamWConfig, GradientsParams};
use burn::tensor::{Device, Tensor, TensorData};
use burn_lora::adapter::budget::{RankAllocator, orthogonality_penalty};
use burn_lora::adapter::{
    AdapterOnly, DEFAULT_NAME, FactorSet, LoraConfig, MergeOptions, Method, adapted_weights, merge,
    merge_and_unload_with, peft, peft::PeftMetadata, set_enabled,
};
use burn_lora::transformer::{Decoder, LinearWeights};
use burn_lora_tests::{
    Golden, MethodCase, Vision, assert_close, floats, gradients, on_each_device, parameters,
};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use serde_json::Value;

use crate::common::{GRADIENT, LOGITS, LOSS, loss};

/// A base of either kind with what is computed of it.
#[derive(Clone)]
#[allow(clippy::large_enum_variant, reason = "there is one of a case")]
enum Base {
    Text(Box<Decoder>, &'static str),
    Vision(Vision, Vec<f32>),
}

impl Base {
    fn open(case: &MethodCase, device: &Device) -> Self {
        match case.base {
            "vision" => Self::Vision(case.vision(device), case.floats("x")),
            base => Self::Text(Box::new(Golden::open(base).base(device)), base),
        }
    }

    fn load(self, folder: &Path) -> (Self, LoraConfig) {
        match self {
            Self::Text(model, base) => {
                let (model, config) = peft::load(*model, DEFAULT_NAME, folder).unwrap();
                (Self::Text(Box::new(model), base), config)
            }
            Self::Vision(model, x) => {
                let (model, config) = peft::load(model, DEFAULT_NAME, folder).unwrap();
                (Self::Vision(model, x), config)
            }
        }
    }

    fn save(&self, config: &LoraConfig, metadata: &PeftMetadata, folder: &Path) {
        match self {
            Self::Text(model, _) => peft::save(&**model, DEFAULT_NAME, config, metadata, folder),
            Self::Vision(model, _) => peft::save(model, DEFAULT_NAME, config, metadata, folder),
        }
        .unwrap();
    }

    fn logits(&self, device: &Device) -> Tensor<3> {
        match self {
            Self::Text(model, base) => model.logits(Golden::open(base).input_ids(device)),
            Self::Vision(model, x) => {
                let x = TensorData::new(x.clone(), [2, 6, 9]);
                model.forward(Tensor::from_data(x, device))
            }
        }
    }

    /// Of a text, what stands at tokens.
    fn real(&self, values: &[f32]) -> Vec<f32> {
        match self {
            Self::Text(_, base) => Golden::open(base).at_tokens(values),
            Self::Vision(..) => values.to_vec(),
        }
    }

    fn loss(&self, device: &Device) -> Tensor<1> {
        match self {
            Self::Text(model, base) => {
                let loss = loss(&Golden::open(base), model, device);
                match orthogonality_penalty(&**model) {
                    Some(penalty) => loss + penalty,
                    None => loss,
                }
            }
            Self::Vision(..) => self.logits(device).powi_scalar(2).mean(),
        }
    }
}

fn on_each_method(test: impl Fn(&MethodCase, Device)) {
    on_each_device(|device| {
        for case in MethodCase::all() {
            test(&case, device.clone());
        }
    });
}

/// With the folders whose factors are over a base of their own.
fn on_each_folder(test: impl Fn(&MethodCase, Device)) {
    on_each_device(|device| {
        for case in MethodCase::all().chain(MethodCase::starts()) {
            test(&case, device.clone());
        }
    });
}

#[test]
fn m_logits_of_an_adapter_trained_by_peft_match() {
    on_each_folder(|case, device| {
        let base = Base::open(case, &device);
        let plain = floats(base.logits(&device));
        assert_close(
            case.name,
            &base.real(&plain),
            &base.real(&case.floats("base.logits")),
            LOGITS,
        );
        let (model, _) = base.load(&case.adapter_folder());
        let expected = model.real(&case.floats("trained.logits"));
        let actual = model.real(&floats(model.logits(&device)));
        assert_close(case.name, &actual, &expected, LOGITS);
    });
}

#[test]
fn m_logits_after_merging_match() {
    on_each_folder(|case, device| {
        let (model, _) = Base::open(case, &device).load(&case.adapter_folder());
        let expected = model.real(&case.floats("trained.logits"));
        let merged = match model.clone() {
            Base::Text(model, base) => Base::Text(Box::new(merge(*model).unwrap()), base),
            Base::Vision(model, x) => Base::Vision(merge(model).unwrap(), x),
        };
        let actual = merged.real(&floats(merged.logits(&device)));
        assert_close(case.name, &actual, &expected, LOGITS);
        // In a tied model, an embedding that was folded in would be the head's, too.
        if case.name == "lora_embedding" {
            return;
        }
        let options = MergeOptions {
            fold_embeddings: true,
            ..MergeOptions::default()
        };
        let plain = match model {
            Base::Text(model, base) => {
                let plain = merge_and_unload_with(*model, &options).unwrap();
                Base::Text(Box::new(plain), base)
            }
            Base::Vision(model, x) => {
                Base::Vision(merge_and_unload_with(model, &options).unwrap(), x)
            }
        };
        let actual = plain.real(&floats(plain.logits(&device)));
        assert_close(case.name, &actual, &expected, LOGITS);
    });
}

#[test]
fn m_every_gradient_matches() {
    on_each_method(|case, device| {
        let device = device.autodiff();
        let scratch = tempfile::tempdir().unwrap();
        case.write_initial(scratch.path());
        let (model, _) = Base::open(case, &device).load(scratch.path());
        let logits = model.real(&floats(model.logits(&device)));
        let expected = model.real(&case.floats("init.logits"));
        assert_close(case.name, &logits, &expected, LOGITS);

        let loss = model.loss(&device);
        let grads = loss.backward();
        assert_close(case.name, &floats(loss), &case.floats("init.loss"), LOSS);
        let (found, shown) = match &model {
            Base::Text(model, _) => (
                gradients(&**model, &grads),
                parameters(&AdapterOnly::new((**model).clone())),
            ),
            Base::Vision(model, _) => (
                gradients(model, &grads),
                parameters(&AdapterOnly::new(model.clone())),
            ),
        };
        assert_eq!(
            found.len(),
            shown.len(),
            "{}: which have a gradient",
            case.name
        );
        // The order of numbers differs by a transpose; sorted, two tensors of the same numbers are the same.
        let sorted = |mut values: Vec<f32>| {
            values.sort_by(f32::total_cmp);
            values
        };
        let mut expected: BTreeMap<String, Vec<f32>> = case.stage("init.grad/");
        expected.retain(|key, _| !key.contains("lm_head"));
        assert_eq!(found.len(), expected.len(), "{}: gradients", case.name);
        let mut theirs: Vec<(String, Vec<f32>)> = expected
            .into_iter()
            .map(|(key, values)| (key, sorted(values)))
            .collect();
        for (path, gradient) in found {
            let ours = sorted(gradient.try_to_vec().unwrap());
            let close = |values: &Vec<f32>| {
                values.len() == ours.len()
                    && values
                        .iter()
                        .zip(&ours)
                        .all(|(x, y)| (x - y).abs() <= 3.0 * GRADIENT)
            };
            let layer = path
                .split(".weight.lora")
                .next()
                .unwrap()
                .split(".bias.lora")
                .next();
            let layer = layer.unwrap().trim_end_matches(".bias");
            let same_layer = |key: &str| key.contains(&format!("{layer}."));
            let place = theirs
                .iter()
                .position(|(key, values)| same_layer(key) && close(values))
                .unwrap_or_else(|| {
                    panic!("{}: the gradient of {path} is none of PEFT's", case.name)
                });
            theirs.remove(place);
        }
    });
}

/// The steps of `golden/methods.py`, from the same values.
fn trained<M: Module>(mut model: M, steps: usize, loss: impl Fn(&M) -> Tensor<1>) -> M {
    let mut optimizer = AdamWConfig::new()
        .with_epsilon(1e-8)
        .with_weight_decay(0.01)
        .init();
    let mut allocator = RankAllocator::of(&model);
    for step in 1..=steps {
        let gradients = GradientsParams::from_grads(loss(&model).backward(), &model);
        if let Some(allocator) = &mut allocator {
            allocator.observe(&model, &gradients);
        }
        model = optimizer.step(2e-2, model, gradients);
        if let Some(allocator) = &mut allocator {
            model = allocator.allocate(model, step);
        }
    }
    model
}

#[test]
fn m_training_ends_where_it_ends_for_peft() {
    on_each_method(|case, device| {
        let device = device.autodiff();
        let scratch = tempfile::tempdir().unwrap();
        case.write_initial(scratch.path());
        let (model, _) = Base::open(case, &device).load(scratch.path());
        let kept = |model: &Base| {
            let weights = match model {
                Base::Text(model, _) => adapted_weights(&**model),
                Base::Vision(model, _) => adapted_weights(model),
            };
            let ranks =
                weights
                    .into_iter()
                    .filter_map(|weight| match weight.stack.method(DEFAULT_NAME) {
                        Some(Method::AdaLora(adalora)) => {
                            let kept = adalora.kept().into_iter().filter(|kept| *kept);
                            Some((weight.path, kept.count()))
                        }
                        _ => None,
                    });
            ranks.collect::<Vec<_>>()
        };
        let model = match model {
            Base::Text(model, base) => {
                let golden = Golden::open(base);
                let model = trained(*model, 8, |model| {
                    let loss = loss(&golden, model, &device);
                    match orthogonality_penalty(model) {
                        Some(penalty) => loss + penalty,
                        None => loss,
                    }
                });
                Base::Text(Box::new(model), base)
            }
            Base::Vision(model, x) => {
                let input = TensorData::new(x.clone(), [2, 6, 9]);
                let input = Tensor::from_data(input, &device);
                let model = trained(model, 8, |model| {
                    model.forward(input.clone()).powi_scalar(2).mean()
                });
                Base::Vision(model, x)
            }
        };
        let (theirs, _) = Base::open(case, &device).load(&case.adapter_folder());
        assert_eq!(
            kept(&model),
            kept(&theirs),
            "{}: what the budget left",
            case.name
        );
        let expected = model.real(&case.floats("trained.logits"));
        let actual = model.real(&floats(model.logits(&device)));
        // AdamW's first steps are of the gradient's sign: where that is rounding, so is the step.
        assert_close(case.name, &actual, &expected, 5e-3);
    });
}

/// The tensors of a folder by key.
fn tensors(folder: &Path) -> BTreeMap<String, (Vec<usize>, Vec<u8>)> {
    let bytes = std::fs::read(folder.join(peft::WEIGHTS_FILE)).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let tensors = file.iter();
    tensors
        .map(|(key, view)| {
            (
                key.to_string(),
                (view.shape().to_vec(), view.data().to_vec()),
            )
        })
        .collect()
}

fn config(folder: &Path) -> BTreeMap<String, Value> {
    let text = std::fs::read_to_string(folder.join(peft::CONFIG_FILE)).unwrap();
    serde_json::from_str(&text).unwrap()
}

#[test]
fn m_a_peft_folder_read_and_written_again_holds_the_same() {
    on_each_method(|case, device| {
        let theirs = case.adapter_folder();
        let (model, adapter) = Base::open(case, &device).load(&theirs);
        let read = peft::read_config(&theirs).unwrap();
        let metadata = PeftMetadata {
            base_model_name_or_path: read.base_model_name_or_path,
            task_type: read.task_type,
            fan_in_fan_out: read.fan_in_fan_out,
            other: read.other,
        };
        let ours = tempfile::tempdir().unwrap();
        model.save(&adapter, &metadata, ours.path());
        let mut expected = tensors(&theirs);
        // A tied head has the same rows under its own name; here there is no such head.
        expected.retain(|key, _| !key.contains("lm_head"));
        let actual = tensors(ours.path());
        assert_eq!(
            actual.keys().collect::<Vec<_>>(),
            expected.keys().collect::<Vec<_>>(),
            "{}",
            case.name
        );
        assert!(actual == expected, "{}: tensors", case.name);
        let (expected, actual) = (config(&theirs), config(ours.path()));
        for (field, value) in &expected {
            let ours = actual.get(field).unwrap_or(&Value::Null);
            let is_same = match (ours.as_f64(), value.as_f64()) {
                (Some(ours), Some(theirs)) => ours == theirs,
                _ => ours == value || field == "task_type",
            };
            assert!(is_same, "{}: {field} was {value}, now {ours}", case.name);
        }
    });
}

/// Writes what `golden/generate.py --check DIR` compares with PEFT, into the folder that `BURN_LORA_EXPORT` names.
#[test]
fn m_exports_for_the_check_by_peft() {
    let root = std::env::var_os("BURN_LORA_EXPORT").map_or_else(
        || Path::new(env!("CARGO_TARGET_TMPDIR")).join("export"),
        PathBuf::from,
    );
    on_each_folder(|case, device| {
        let folder = root.join(case.name);
        let adapter = folder.join("adapter");
        // Not what PEFT wrote: the values from which the gradients are computed.
        let scratch = tempfile::tempdir().unwrap();
        case.write_initial(scratch.path());
        let (model, config) = Base::open(case, &device).load(scratch.path());
        let read = peft::read_config(&case.adapter_folder()).unwrap();
        let metadata = PeftMetadata {
            base_model_name_or_path: Some(case.base.to_string()),
            fan_in_fan_out: read.fan_in_fan_out,
            ..PeftMetadata::default()
        };
        model.save(&config, &metadata, &adapter);
        let logits = model.logits(&device);
        let shape = logits.dims().to_vec();
        let written = floats(logits);
        let view = TensorView::new(Dtype::F32, shape, bytemuck::cast_slice(&written)).unwrap();
        let path = folder.join("logits.safetensors");
        safetensors::serialize_to_file([("logits", view)], None, &path).unwrap();
    });
}

#[test]
fn m_a_folder_of_pissa_or_olora_becomes_a_plain_one_over_the_base_as_it_is() {
    on_each_device(|device| {
        for case in MethodCase::starts() {
            let base = Base::open(&case, &device);
            let plain = floats(base.logits(&device));
            let (model, adapter) = base.clone().load(&case.adapter_folder());
            let off = match model.clone() {
                Base::Text(model, base) => {
                    Base::Text(Box::new(set_enabled(*model, false).unwrap()), base)
                }
                Base::Vision(model, x) => Base::Vision(set_enabled(model, false).unwrap(), x),
            };
            assert_eq!(
                floats(off.logits(&device)),
                plain,
                "{}: the base",
                case.name
            );
            // What is written is read by anyone as it is.
            let ours = tempfile::tempdir().unwrap();
            model.save(&adapter, &PeftMetadata::default(), ours.path());
            assert_eq!(config(ours.path())["init_lora_weights"], true);
            let (again, read) = base.load(ours.path());
            assert_eq!(read, adapter, "{}", case.name);
            let expected = model.real(&case.floats("trained.logits"));
            let actual = again.real(&floats(again.logits(&device)));
            assert_close(case.name, &actual, &expected, LOGITS);
        }
    });
}

#[test]
fn m_a_folder_of_pissa_or_olora_is_read_over_the_files_of_its_base() {
    let device = Device::flex();
    let is_lora = |case: &MethodCase| case.base != "vision" && case.name != "pissa_dora";
    for case in MethodCase::starts().filter(is_lora) {
        let folder = case.adapter_folder();
        let error = FactorSet::load(&folder).unwrap_err().to_string();
        assert!(error.contains("mean nothing without the base"), "{error}");
        let golden = Golden::open(case.base);
        let weights = LinearWeights::open(&golden.model_folder()).unwrap();
        let set = FactorSet::load_over(&folder, |path| weights.weight(path)).unwrap();
        let model = set.attach(golden.base(&device), DEFAULT_NAME).unwrap();
        let logits = floats(model.logits(golden.input_ids(&device)));
        let expected = golden.at_tokens(&case.floats("trained.logits"));
        assert_close(case.name, &golden.at_tokens(&logits), &expected, LOGITS);
        let other = LinearWeights::open(&Golden::open("gpt_neox").model_folder()).unwrap();
        let error = FactorSet::load_over(&folder, |path| other.weight(path)).unwrap_err();
        assert!(error.to_string().contains("there is no matrix"), "{error}");
    }
}

#[test]
fn m_a_folder_that_peft_converted_to_plain_lora_is_read_as_it_is() {
    on_each_device(|device| {
        for case in MethodCase::converted() {
            let base = Base::open(&case, &device);
            let plain = base.real(&floats(base.logits(&device)));
            let expected = base.real(&case.floats("base.logits"));
            assert_close(case.name, &plain, &expected, LOGITS);
            let (model, adapter) = base.load(&case.adapter_folder());
            let expected = model.real(&case.floats("trained.logits"));
            let actual = model.real(&floats(model.logits(&device)));
            assert_close(case.name, &actual, &expected, LOGITS);
            let rank = adapter.rank;
            assert!(
                rank == 4 || rank == 6,
                "{}: {rank} is not doubled",
                case.name
            );
            // By its files alone, too.
            assert_eq!(
                FactorSet::load(&case.adapter_folder())
                    .unwrap()
                    .layers
                    .len(),
                4
            );
        }
    });
}

#[test]
fn m_a_folder_over_a_base_that_cannot_be_made_again_is_refused() {
    let device = Device::flex();
    let case = MethodCase::starts().next().unwrap();
    for (word, reason) in [
        ("pissa_niter_16", "random sketch"),
        ("corda", "by data"),
        ("lora_ga", "by data"),
        ("loftq", "bitsandbytes"),
        ("pisa", "did you mean \"pissa\"?"),
    ] {
        let scratch = tempfile::tempdir().unwrap();
        case.write_initial(scratch.path());
        let mut fields = config(scratch.path());
        fields.insert("init_lora_weights".into(), word.into());
        let text = serde_json::to_string(&fields).unwrap();
        std::fs::write(scratch.path().join(peft::CONFIG_FILE), text).unwrap();
        let model = Golden::open(case.base).base(&device);
        let error = peft::load(model, DEFAULT_NAME, scratch.path()).unwrap_err();
        let error = error.to_string();
        assert!(error.contains(reason) && error.contains(word), "{error}");
        // What helps.
        let way = "path_initial_model_for_weight_conversion";
        assert_eq!(error.contains(way), word != "pisa", "{error}");
    }
}

#[test]
fn m_the_projections_of_a_key_are_those_that_peft_drew() {
    let device = Device::flex();
    let case = MethodCase::all().find(|case| case.name == "vera").unwrap();
    // The same adapter from its key alone.
    let scratch = tempfile::tempdir().unwrap();
    let theirs = case.adapter_folder();
    let kept = tensors(&theirs);
    let kept: Vec<_> = kept
        .iter()
        .filter(|(key, _)| !key.contains("vera_A") && !key.contains("vera_B"))
        .collect();
    let views = kept.iter().map(|(key, (shape, bytes))| {
        (
            key.as_str(),
            TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap(),
        )
    });
    safetensors::serialize_to_file(views, None, &scratch.path().join(peft::WEIGHTS_FILE)).unwrap();
    let mut fields = config(&theirs);
    fields.insert("save_projection".to_string(), Value::Bool(false));
    let text = serde_json::to_string(&fields).unwrap();
    std::fs::write(scratch.path().join(peft::CONFIG_FILE), text).unwrap();
    let shared = |folder: &Path| {
        let (model, _) = Base::open(&case, &device).load(folder);
        let Base::Text(model, _) = model else {
            panic!("a text")
        };
        let weights = adapted_weights(&*model).into_iter();
        let projections = weights.flat_map(|weight| match weight.stack.method(DEFAULT_NAME) {
            Some(Method::Vera(vera)) => [floats(vera.a.clone()), floats(vera.b.clone())].concat(),
            other => panic!("{other:?}"),
        });
        projections.collect::<Vec<f32>>()
    };
    let (drawn, saved) = (shared(scratch.path()), shared(&theirs));
    assert_close("projections", &drawn, &saved, 1e-6);
    assert_eq!(drawn.len(), saved.len());
}
