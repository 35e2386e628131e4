//! What must hold of every method, on every kind of layer, over bases in f32 and bf16: the table of methods over a Llama, a GPT-2, a
//! BERT that classifies and a T5 (which call `project`), a user's module of plain layers and one of convolutions.

use std::collections::BTreeMap;
use std::fs;

use burn::module::{Module, ModuleMapper, Param};
use burn::optim::{AdamWConfig, GradientsParams};
use burn::tensor::{DType, Device, Tensor, TensorData};
use burn_lora::adapter::{
    AdapterError, DEFAULT_NAME, INITIALIZATIONS, InitializationInfo, LoraConfig, LoraInit, METHODS,
    MergeOptions, MethodConfig, MethodInfo, Targets, TensorFault, activate, adapted_weights,
    adapters, attach, delete, merge, merge_and_unload_with, peft, peft::PeftMetadata, rename,
    set_enabled, summary, unmerge, with_rows,
};
use burn_lora::transformer::PART_METHODS;
use burn_lora_tests::{
    Subject, assert_close, assert_same, bert, gpt2, gradients, llama, methods_for,
    methods_for_kernels, mlp, on_each_device, parameters, random, t5, vision,
};
use safetensors::SafeTensors;
use safetensors::tensor::TensorView;

use crate::common::{
    SAME, adapters_of, apart, assert_changed, assert_same_parameters, base_of, is_adapter, refusal,
};

/// The methods that go onto all targets of a subject.
fn table<M: Module>(subject: &Subject<M>) -> Vec<LoraConfig> {
    let last = subject.targets.last().unwrap();
    let mut methods = methods_for(&subject.config(), last);
    if subject.name == "vision" {
        methods.retain(|config| !matches!(config.method, MethodConfig::Vera(_)));
        methods.extend(methods_for_kernels(&subject.config()));
    }
    if subject.name == "gpt2" {
        methods.push(subject.config().with_lora_bias(true));
        let dora = subject.config().with_method(MethodConfig::Dora);
        methods.push(dora.with_lora_bias(true));
        methods.push(subject.config().with_method(MethodConfig::BitFit));
    }
    if matches!(subject.name, "llama" | "mlp") {
        // The columns of a fused projection, told by their ranges.
        let columns = burn_lora::adapter::Columns::Ranges(vec![0..3, 5..10]);
        let name = subject.targets[1];
        methods.push(
            LoraConfig {
                rank: 3,
                ..subject.config()
            }
            .with_parts(name, columns),
        );
    }
    methods
}

/// The formats that a base may have on a device.
fn formats(device: &Device) -> Vec<DType> {
    let formats = [DType::F32, DType::BF16].into_iter();
    formats
        .filter(|dtype| device.supports_dtype(*dtype))
        .collect()
}

macro_rules! on_every_method {
    ($prepare:expr, $check:ident) => {
        on_each_device(|device| {
            for dtype in formats(&device) {
                let device: Device = ($prepare)(device.clone());
                on_every_method!(@one llama, device, dtype, $check);
                on_every_method!(@one gpt2, device, dtype, $check);
                on_every_method!(@one bert, device, dtype, $check);
                on_every_method!(@one t5, device, dtype, $check);
                on_every_method!(@one mlp, device, dtype, $check);
                on_every_method!(@one vision, device, dtype, $check);
            }
        })
    };
    (@one $make:ident, $device:ident, $dtype:expr, $check:ident) => {
        let subject = $make(&$device, $dtype);
        for config in table(&subject) {
            let what = format!("{}, {:?}, {}", subject.name, $dtype, config.method);
            $check(&what, &subject, &config);
        }
    };
}

fn plain(device: Device) -> Device {
    device
}

fn tracked(device: Device) -> Device {
    device.autodiff()
}

fn fresh<M: Module>(subject: &Subject<M>, config: &LoraConfig) -> M {
    attach(subject.base.clone(), DEFAULT_NAME, config).unwrap()
}

fn changed<M: Module>(subject: &Subject<M>, config: &LoraConfig) -> M {
    fresh(subject, &random(config))
}

fn fold_all() -> MergeOptions {
    MergeOptions {
        fold_embeddings: true,
        ..MergeOptions::default()
    }
}

// 1. A fresh adapter is the identity; with random values the output differs. 12. Disabled it is the base exactly.

pub(crate) fn identity<M: Module>(what: &str, subject: &Subject<M>, config: &LoraConfig) {
    let base = subject.output(&subject.base);
    let same = subject.output(&fresh(subject, config));
    // A magnitude divides by what it multiplies by.
    let tolerance = match config.method {
        MethodConfig::Dora => 1e-5,
        _ => 1e-6,
    };
    assert_close(what, &same, &base, apart(subject, &base, tolerance));
    let changed = changed(subject, config);
    let output = subject.output(&changed);
    assert_changed(what, &output, &base);
    let disabled = set_enabled(changed, false).unwrap();
    assert_same(what, &subject.output(&disabled), &base);
    let enabled = set_enabled(disabled, true).unwrap();
    assert_same(what, &subject.output(&enabled), &output);
}

#[test]
fn i01_i12_fresh_is_the_identity_and_disabled_is_the_base() {
    on_every_method!(plain, identity);
}

// 3. Only adapter parameters receive gradients; after three steps they changed and the base did not. 18. DoRA's magnitude is
// among them.

pub(crate) fn training<M: Module>(what: &str, subject: &Subject<M>, config: &LoraConfig) {
    let model = changed(subject, config);
    let found = gradients(&model, &subject.loss(&model).backward());
    let mut expected = adapters_of(parameters(&model));
    if config.method == MethodConfig::LoraFa {
        expected.retain(|path, _| !path.ends_with(".a"));
    }
    assert_eq!(
        found.keys().collect::<Vec<_>>(),
        expected.keys().collect::<Vec<_>>(),
        "{what}: which parameters have a gradient"
    );
    let before = parameters(&model);
    let mut optimizer = AdamWConfig::new().with_weight_decay(0.1).init();
    let mut model = model;
    for _ in 0..3 {
        let gradients = GradientsParams::from_grads(subject.loss(&model).backward(), &model);
        model = optimizer.step(1e-2, model, gradients);
    }
    let after = parameters(&model);
    for (path, value) in &after {
        let is_same = before[path] == *value;
        assert_eq!(
            is_same,
            !expected.contains_key(path),
            "{what}: {path} unchanged: {is_same}"
        );
    }
    let untouched = base_of(parameters(&subject.base));
    assert_same_parameters(what, &base_of(after), &untouched);
    // What was trained still merges into what it computes: a bias sees the scales of its weight.
    let output = subject.output(&model.valid());
    let merged = subject.output(&merge(model.valid()).unwrap());
    assert_close(what, &merged, &output, apart(subject, &output, SAME));
}

#[test]
fn i03_i18_only_adapters_are_trained_and_each_of_their_parameters() {
    on_every_method!(tracked, training);
}

// 4. The trainable count is the formula of the method.

fn expected_count<M: Module>(
    subject: &Subject<M>,
    config: &LoraConfig,
    layers: &[String],
) -> usize {
    let r = config.rank;
    let all = parameters(&subject.base);
    let of_targets = |name: &str| -> usize {
        let owned = all.iter().filter(|(path, _)| {
            let mut targets = subject.targets.iter();
            targets.any(|target| path.ends_with(&format!("{target}.{name}")))
        });
        owned
            .map(|(_, data)| data.shape().iter().product::<usize>())
            .sum()
    };
    let biases = of_targets("bias");
    let last = subject.targets.last().unwrap();
    let is_last = |place: usize| layers[place].ends_with(last);
    let mut places = 0..;
    let each = |[d_in, d_out]: [usize; 2], place: usize| match &config.method {
        MethodConfig::Lora => r * (d_in + d_out),
        MethodConfig::LoraFa => r * d_out,
        MethodConfig::Dora => r * (d_in + d_out) + d_out,
        MethodConfig::Vera(_) => r + d_out,
        MethodConfig::LoHa(loha) if loha.use_effective_conv2d && place < 2 => {
            let kernel = [3, 2 * 3][place];
            2 * r * (d_in / kernel + d_out + r * kernel)
        }
        MethodConfig::LoHa(_) => 2 * r * (d_in + d_out),
        MethodConfig::AdaLora(_) => r * (d_in + d_out + 1),
        MethodConfig::Ia3(ia3) if ia3.feedforward.is_some() && is_last(place) => d_in,
        MethodConfig::Ia3(_) => d_out,
        MethodConfig::Full => d_in * d_out,
        _ => 0,
    };
    let sum: usize = subject
        .adapted
        .iter()
        .map(|shape| each(*shape, places.next().unwrap()))
        .sum();
    match config.method {
        MethodConfig::BitFit => biases,
        MethodConfig::Full => sum + biases,
        _ if config.lora_bias => sum + biases,
        _ => sum,
    }
}

#[test]
fn i04_the_trainable_count_is_the_formula_of_the_method() {
    fn check<M: Module>(what: &str, subject: &Subject<M>, config: &LoraConfig) {
        if matches!(config.method, MethodConfig::LoKr(_)) || !config.parts.is_empty() {
            return; // These depend on how a width factors, and on the columns: below.
        }
        let summary = summary(&fresh(subject, config));
        let layers: Vec<String> = summary.rows.iter().map(|row| row.layer.clone()).collect();
        let expected = expected_count(subject, config, &layers);
        assert_eq!(summary.trainable, expected, "{what}");
        let rows: usize = summary.rows.iter().map(|row| row.parameters).sum();
        assert_eq!(rows, summary.trainable, "{what}: the table");
    }
    on_every_method!(tracked, check);
    let subject = mlp(&Device::flex().autodiff(), DType::F32);
    let count = |config: LoraConfig| summary(&fresh(&subject, &config)).trainable;
    let lokr = LoraConfig {
        rank: 1,
        ..subject.config()
    }
    .with_method("lokr".parse().unwrap());
    // [6, 20] is 2 x 3 by 4 x 5 and [20, 10] is 4 x 5 by 2 x 5: C as a whole, D of rank 1.
    assert_eq!(count(lokr), (4 * 2 + (5 + 3)) + (2 * 4 + (5 + 5)));
    let columns = burn_lora::adapter::Columns::Equal {
        of: 5,
        keep: vec![0, 3],
    };
    let parts = LoraConfig {
        rank: 2,
        ..subject.config()
    }
    .with_parts("up", columns);
    assert_eq!(count(parts), 2 * 2 * (6 + 4) + 2 * (20 + 10));
}

// 5. merged = unmerged = merged-then-unmerged. 7. A merged module has no adapter left.

pub(crate) fn merging<M: Module>(what: &str, subject: &Subject<M>, config: &LoraConfig) {
    let adapted = changed(subject, config);
    let expected = subject.output(&adapted);
    let merged = merge(adapted.clone()).unwrap();
    let once = subject.output(&merged);
    let most = apart(subject, &expected, SAME);
    assert_close(what, &once, &expected, most);
    assert_same(
        what,
        &subject.output(&merge(merged.clone()).unwrap()),
        &once,
    );
    let unmerged = unmerge(merged).unwrap();
    assert_same(what, &subject.output(&unmerged), &expected);
    assert_same_parameters(what, &parameters(&unmerged), &parameters(&adapted));
    let unloaded = merge_and_unload_with(adapted, &fold_all()).unwrap();
    assert!(adapted_weights(&unloaded).is_empty(), "{what}");
    assert_close(what, &subject.output(&unloaded), &expected, most);
    let paths = parameters(&unloaded);
    let base = parameters(&subject.base);
    assert_eq!(
        paths.keys().collect::<Vec<_>>(),
        base.keys().collect::<Vec<_>>()
    );
}

#[test]
fn i05_i07_merging_changes_nothing_and_is_undone_exactly() {
    on_every_method!(plain, merging);
}

#[test]
fn i05_merging_to_another_dtype_rounds_once() {
    fn check<M: Module>(what: &str, subject: &Subject<M>, config: &LoraConfig) {
        let adapted = changed(subject, config);
        let exact = merge_and_unload_with(adapted.clone(), &fold_all()).unwrap();
        let options = MergeOptions {
            dtype: Some(DType::BF16),
            ..fold_all()
        };
        let rounded = parameters(&merge_and_unload_with(adapted, &options).unwrap());
        for (path, value) in parameters(&exact) {
            let expected = value.convert_dtype(DType::BF16);
            assert!(rounded[&path] == expected, "{what}: {path}");
        }
    }
    // The format is flex's; on other backends nothing else happens.
    let device = Device::flex();
    on_every_method!(@one llama, device, DType::F32, check);
    on_every_method!(@one mlp, device, DType::F32, check);
}

// 6. A safe merge refuses NaN and infinity and leaves the base as it was.

struct Poison(Vec<String>, f32);

impl ModuleMapper for Poison {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.0.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.0.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if !is_adapter(&self.0.join(".")) {
            return param;
        }
        let value = self.1;
        param.map(|tensor| {
            let options = (&tensor.device(), tensor.dtype());
            let mut values: Vec<f32> = tensor.to_data().try_to_vec().unwrap();
            values[0] = value;
            Tensor::from_data(TensorData::new(values, tensor.shape()), options)
        })
    }
}

#[test]
fn i06_merging_refuses_nan_and_infinity() {
    fn check<M: Module>(what: &str, subject: &Subject<M>, config: &LoraConfig) {
        for value in [f32::NAN, f32::INFINITY] {
            let model = changed(subject, config).map(&mut Poison(Vec::new(), value));
            match refusal(merge(model.clone())) {
                AdapterError::NotFinite { layers } => assert!(!layers.is_empty(), "{what}"),
                other => panic!("{what}: {other}"),
            }
            let before = parameters(&subject.base);
            assert_same_parameters(what, &base_of(parameters(&model)), &before);
        }
    }
    on_every_method!(plain, check);
}

// 8. bf16 bases: forward, backward, merge run, as every test here says; adapters stay f32.

#[test]
fn i08_gradients_of_adapters_are_f32_over_every_base() {
    fn check<M: Module>(what: &str, subject: &Subject<M>, config: &LoraConfig) {
        let model = changed(subject, config);
        let found = gradients(&model, &subject.loss(&model).backward());
        assert!(!found.is_empty(), "{what}");
        for (path, gradient) in &found {
            assert_eq!(gradient.dtype(), DType::F32, "{what}: {path}");
        }
    }
    on_every_method!(tracked, check);
}

// 9. save -> load reproduces the output. 10. Every fault of a file is listed. 16. Patterns give a layer its own rank.

fn save<M: Module>(subject: &Subject<M>, model: &M, config: &LoraConfig, folder: &std::path::Path) {
    let metadata = PeftMetadata {
        base_model_name_or_path: Some(subject.name.to_string()),
        ..PeftMetadata::default()
    };
    peft::save(model, DEFAULT_NAME, config, &metadata, folder).unwrap();
}

pub(crate) fn saving<M: Module>(what: &str, subject: &Subject<M>, config: &LoraConfig) {
    let folder = tempfile::tempdir().unwrap();
    let adapted = changed(subject, config);
    save(subject, &adapted, &random(config), folder.path());
    let (loaded, read) = peft::load(subject.base.clone(), DEFAULT_NAME, folder.path()).unwrap();
    assert_close(
        what,
        &subject.output(&loaded),
        &subject.output(&adapted),
        1e-6,
    );
    if config.parts.is_empty() {
        assert_same_parameters(what, &parameters(&loaded), &parameters(&adapted));
        let trained = match config.method {
            // To a file, LoRA-FA is LoRA.
            MethodConfig::LoraFa => config.clone().with_method(MethodConfig::Lora),
            _ => config.clone(),
        };
        // A file of a method without a rank says none.
        let trained = match config.method.word() {
            "ia3" | "bitfit" | "full" => LoraConfig {
                rank: read.rank,
                ..trained
            },
            _ => trained,
        };
        assert_eq!(read, trained, "{what}");
    }
}

#[test]
fn i09_a_saved_adapter_is_loaded_as_it_was() {
    on_every_method!(plain, saving);
}

#[test]
fn i10_missing_and_unexpected_tensors_are_listed_together_and_nothing_is_applied() {
    fn check<M: Module>(what: &str, subject: &Subject<M>, config: &LoraConfig) {
        let folder = tempfile::tempdir().unwrap();
        save(
            subject,
            &changed(subject, config),
            &random(config),
            folder.path(),
        );
        let path = folder.path().join(peft::WEIGHTS_FILE);
        let bytes = fs::read(&path).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let mut tensors: BTreeMap<String, TensorView> = file.tensors().into_iter().collect();
        let first = tensors.keys().next().unwrap().clone();
        let view = tensors.remove(&first).unwrap();
        tensors.insert(format!("{first}_x"), view);
        fs::write(&path, safetensors::serialize(tensors, None).unwrap()).unwrap();
        let error = refusal(peft::load(
            subject.base.clone(),
            DEFAULT_NAME,
            folder.path(),
        ));
        let AdapterError::Tensors { faults, .. } = &error else {
            panic!("{what}: {error}");
        };
        assert_eq!(faults.len(), 2, "{what}: {error}");
        assert!(
            matches!(&faults[0], TensorFault::Missing { key, .. } if *key == first),
            "{what}"
        );
        assert!(
            matches!(&faults[1], TensorFault::Unexpected { .. }),
            "{what}"
        );
    }
    on_every_method!(plain, check);
}

// 13. Several adapters of different methods: switching back reproduces; a duplicate name is refused without change; deleting an
// unknown one is refused.

#[test]
fn i13_adapters_of_different_methods_live_beside_each_other() {
    fn check<M: Module>(what: &str, subject: &Subject<M>, config: &LoraConfig) {
        let first = changed(subject, config);
        let alone = subject.output(&first);
        let lora = random(&subject.config()).with_seed(5);
        let second = attach(subject.base.clone(), "second", &lora).unwrap();
        let other = subject.output(&second);
        let both = attach(first, "second", &lora).unwrap();
        let together = subject.output(&both);
        assert_changed(what, &together, &alone);
        // In the order in which the module's walk comes upon them: a bias comes after its weight.
        let mut names: Vec<String> = adapters(&both).into_iter().map(|one| one.name).collect();
        names.sort();
        assert_eq!(names, [DEFAULT_NAME, "second"], "{what}");
        let merged = subject.output(&merge(both.clone()).unwrap());
        let most = apart(subject, &together, 3.0 * SAME);
        assert_close(what, &merged, &together, most);

        let one = activate(both.clone(), &["second"]).unwrap();
        assert_close(what, &subject.output(&one), &other, 1e-6);
        let back = activate(one, &[DEFAULT_NAME]).unwrap();
        assert_same(what, &subject.output(&back), &alone);
        let none = activate(both.clone(), &[]).unwrap();
        assert_same(what, &subject.output(&none), &subject.output(&subject.base));
        let again = activate(none, &["second", DEFAULT_NAME]).unwrap();
        assert_same(what, &subject.output(&again), &together);

        let duplicate = refusal(attach(both.clone(), "second", config));
        assert!(
            matches!(duplicate, AdapterError::DuplicateName { .. }),
            "{what}: {duplicate}"
        );
        for result in [
            delete(both.clone(), "third"),
            activate(both.clone(), &["second", "third"]),
            rename(both.clone(), "third", "fourth"),
        ] {
            assert!(
                matches!(refusal(result), AdapterError::NoAdapter { .. }),
                "{what}"
            );
        }
        let taken = refusal(rename(both.clone(), "second", DEFAULT_NAME));
        assert!(
            matches!(taken, AdapterError::DuplicateName { .. }),
            "{what}: {taken}"
        );

        let renamed = rename(both, "second", "third").unwrap();
        assert_same(what, &subject.output(&renamed), &together);
        let left = delete(renamed, "third").unwrap();
        assert_same(what, &subject.output(&left), &alone);
        let bare = delete(left, DEFAULT_NAME).unwrap();
        assert_same(what, &subject.output(&bare), &subject.output(&subject.base));
        assert!(adapted_weights(&bare).is_empty(), "{what}");
        let anew = attach(bare, DEFAULT_NAME, &random(config)).unwrap();
        assert_same(what, &subject.output(&anew), &alone);
    }
    on_every_method!(plain, check);
}

// 14. Rows with adapters of their own, and the bare base among them, equal the rows run alone, and learn of their rows.

#[test]
fn i14_rows_with_adapters_of_their_own_equal_the_rows_alone() {
    fn check<M: Module>(what: &str, subject: &Subject<M>, config: &LoraConfig) {
        let lora = random(&subject.config()).with_seed(3);
        let one = changed(subject, config);
        let both = attach(one.clone(), "second", &lora).unwrap();
        let second = attach(subject.base.clone(), "second", &lora).unwrap();
        let half = |model: &M, row: usize| {
            let values = subject.output(model);
            let width = values.len() / 2;
            values[row * width..][..width].to_vec()
        };
        for names in [
            [Some(DEFAULT_NAME), None],
            [Some("second"), Some(DEFAULT_NAME)],
        ] {
            let mixed = with_rows(both.clone(), Some(&names)).unwrap();
            for (row, name) in names.into_iter().enumerate() {
                let alone = match name {
                    Some(DEFAULT_NAME) => &one,
                    Some(_) => &second,
                    None => &subject.base,
                };
                let expected = half(alone, row);
                let most = apart(subject, &expected, 2e-5);
                let what = format!("{what}, row {row} of {names:?}");
                assert_close(&what, &half(&mixed, row), &expected, most);
            }
            let found = gradients(&mixed, &subject.loss(&mixed).backward());
            for name in names.into_iter().flatten() {
                let part = format!(".lora.{name}.");
                assert!(
                    found.keys().any(|path| path.contains(&part)),
                    "{what}: {name}"
                );
            }
        }
    }
    // What calls `project`, with a batch as its first dimension.
    on_each_device(|device| {
        for dtype in formats(&device) {
            let device = device.clone().autodiff();
            on_every_method!(@one llama, device, dtype, check);
            on_every_method!(@one gpt2, device, dtype, check);
            on_every_method!(@one bert, device, dtype, check);
            on_every_method!(@one t5, device, dtype, check);
        }
    });
}

// 21. Hot-swap to the weights of another rank and alpha.

#[test]
fn i21_weights_of_every_method_are_swapped_in_at_another_rank() {
    fn check<M: Module>(what: &str, subject: &Subject<M>, config: &LoraConfig) {
        let other = LoraConfig {
            rank: 2,
            alpha: 5.0,
            ..random(config)
        };
        let serving = attach(subject.base.clone(), "serving", &other).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let adapted = changed(subject, config);
        save(subject, &adapted, &random(config), folder.path());
        let (swapped, _) = peft::hot_swap(serving, "serving", folder.path()).unwrap();
        let expected = subject.output(&adapted);
        assert_close(what, &subject.output(&swapped), &expected, 1e-6);
    }
    on_every_method!(plain, check);
}

#[test]
fn every_method_of_the_table_has_a_word_and_the_other_way_round() {
    for info in METHODS {
        let method: MethodConfig = info.word.parse().unwrap();
        assert_eq!(method.word(), info.word);
    }
    let error = refusal("loar".parse::<MethodConfig>()).to_string();
    assert!(error.contains("did you mean \"lora\""), "{error}");
}

/// `BURN_LORA_BLESS=1` writes the document again.
#[test]
fn the_document_of_the_methods_is_what_the_code_says() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/methods.md");
    for (name, table) in [
        ("methods", MethodInfo::markdown()),
        ("initializations", InitializationInfo::markdown()),
        ("parts", MethodInfo::markdown_of(&PART_METHODS)),
    ] {
        let marks = (
            format!("<!-- {name}: generated -->\n"),
            format!("<!-- end of {name} -->\n"),
        );
        let text = fs::read_to_string(path).unwrap();
        let start = text.find(&marks.0).unwrap() + marks.0.len();
        let end = text.find(&marks.1).unwrap();
        if std::env::var_os("BURN_LORA_BLESS").is_some() {
            let new = format!("{}{table}{}", &text[..start], &text[end..]);
            fs::write(path, new).unwrap();
            continue;
        }
        assert_eq!(
            &text[start..end],
            table,
            "docs/methods.md is stale: run this with BURN_LORA_BLESS=1"
        );
    }
}

#[test]
fn every_initialization_of_the_table_has_a_word() {
    for info in INITIALIZATIONS {
        let init: LoraInit = info.word.parse().unwrap();
        let base = match &init {
            LoraInit::Informed(initialization) => {
                assert_eq!(initialization.word(), info.word);
                initialization.changes_base()
            }
            _ => false,
        };
        assert_eq!(base, info.base != "stays", "{}", info.word);
    }
}

#[test]
fn targets_that_a_method_cannot_adapt_are_named_together() {
    let device = Device::flex();
    let subject = vision(&device, DType::F32);
    let config = subject.config().with_method("vera".parse().unwrap());
    match refusal(attach(subject.base.clone(), DEFAULT_NAME, &config)) {
        AdapterError::NotAdaptable { layers, .. } => assert_eq!(layers, ["line", "plane"]),
        other => panic!("{other}"),
    }
    let subject = llama(&device, DType::F32);
    let targets = Targets::names(["embed_tokens"]);
    for word in ["vera", "loha", "lokr", "adalora", "ia3"] {
        let config = LoraConfig::new(2, 2.0)
            .with_targets(targets.clone())
            .with_method(word.parse().unwrap());
        let error = refusal(attach(subject.base.clone(), DEFAULT_NAME, &config));
        assert!(
            matches!(error, AdapterError::NotAdaptable { .. }),
            "{word}: {error}"
        );
    }
}
