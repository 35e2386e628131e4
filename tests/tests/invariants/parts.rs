//! What must hold of the methods that are parts of a model beside its weights, in a Llama, a GPT-2, a BERT that classifies and a T5.

use burn::module::{ModuleMapper, Param};
use burn::optim::{AdamWConfig, GradientsParams};
use burn::tensor::{DType, Device, Tensor, TensorData};
use burn_lora::adapter::{AdapterError, LoraConfig, attach};
use burn_lora::transformer::{
    BottleneckConfig, BottleneckPlacement, PART_MODULES, PromptEncoderKind, PromptInit,
    VirtualTokensConfig, WithRows,
};
use burn_lora_tests::{
    Subject, assert_close, assert_same, bert, gpt2, gradients, llama, on_each_device, parameters,
    random, t5,
};
use serde_json::Map;

use crate::common::{SAME, apart, assert_changed, assert_same_parameters, refusal};

/// One of the methods.
#[derive(Clone, Debug)]
enum Part {
    Tokens(VirtualTokensConfig),
    Bottlenecks(BottleneckConfig),
}

fn table() -> Vec<Part> {
    let tokens = [
        VirtualTokensConfig::Prompt {
            tokens: 3,
            init: PromptInit::Random,
        },
        VirtualTokensConfig::PTuning {
            tokens: 2,
            encoder: PromptEncoderKind::Mlp,
            d_hidden: 5,
        },
        VirtualTokensConfig::Prefix {
            tokens: 2,
            projection: None,
        },
        VirtualTokensConfig::Prefix {
            tokens: 1,
            projection: Some(5),
        },
    ];
    let placements = [
        BottleneckPlacement::Houlsby,
        BottleneckPlacement::Pfeiffer,
        BottleneckPlacement::Parallel,
    ];
    let bottlenecks = placements.map(|placement| BottleneckConfig::new(4, placement));
    let tokens = tokens.into_iter().map(Part::Tokens);
    tokens.chain(bottlenecks.map(Part::Bottlenecks)).collect()
}

impl Part {
    /// Adds a fresh one.
    fn fresh<M: WithRows>(&self, model: M, name: &str, seed: u64) -> M {
        match self {
            Self::Tokens(config) => model.add_virtual_tokens(name, config, seed).unwrap(),
            Self::Bottlenecks(config) => model.add_bottlenecks(name, config, seed).unwrap(),
        }
    }

    /// Adds one that changes the output.
    fn add<M: WithRows>(&self, model: M, name: &str, seed: u64) -> M {
        self.fresh(model, name, seed).map(&mut Moved {
            path: Vec::new(),
            name: name.to_string(),
            seed,
        })
    }

    fn names<M: WithRows>(&self, model: &M) -> Vec<String> {
        let names = match self {
            Self::Tokens(_) => model.virtual_token_names(),
            Self::Bottlenecks(_) => model.bottleneck_names(),
        };
        names.into_iter().map(String::from).collect()
    }

    fn activate<M: WithRows>(&self, model: M, name: &str) -> Result<M, String> {
        match self {
            Self::Tokens(_) => model.activate_virtual_tokens(name).map_err(text),
            Self::Bottlenecks(_) => model.activate_bottlenecks(name).map_err(text),
        }
    }

    fn rename<M: WithRows>(&self, model: M, from: &str, to: &str) -> Result<M, String> {
        match self {
            Self::Tokens(_) => model.rename_virtual_tokens(from, to).map_err(text),
            Self::Bottlenecks(_) => model.rename_bottlenecks(from, to).map_err(text),
        }
    }

    fn delete<M: WithRows>(&self, model: M, name: &str) -> Result<M, String> {
        match self {
            Self::Tokens(_) => model.delete_virtual_tokens(name).map_err(text),
            Self::Bottlenecks(_) => model.delete_bottlenecks(name).map_err(text),
        }
    }

    fn enabled<M: WithRows>(&self, model: M, enabled: bool) -> M {
        match self {
            Self::Tokens(_) => model.with_virtual_tokens_enabled(enabled),
            Self::Bottlenecks(_) => model.with_bottlenecks_enabled(enabled),
        }
    }

    /// Through a folder, from one model's name to another's.
    fn moved<M: WithRows>(&self, from: &M, name: &str, into: M, to: &str) -> Result<M, String> {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        match self {
            Self::Tokens(_) => {
                from.save_named_virtual_tokens(name, folder, None, &Map::new())
                    .map_err(text)?;
                let loaded = into.load_named_virtual_tokens(to, folder);
                loaded.map(|(model, _)| model).map_err(text)
            }
            Self::Bottlenecks(config) => {
                from.save_named_bottlenecks(name, folder, None)
                    .map_err(text)?;
                let (model, read) = into.load_named_bottlenecks(to, folder).map_err(text)?;
                assert_eq!(read, *config);
                assert_eq!(model.bottleneck_config(to), Some(*config));
                Ok(model)
            }
        }
    }
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// Moves what has a name.
struct Moved {
    path: Vec<String>,
    name: String,
    seed: u64,
}

impl ModuleMapper for Moved {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if !is_part(&self.path.join("."), &self.name) {
            return param;
        }
        self.seed += 1;
        let step = 0.37 * self.seed as f32;
        param.map(|value| {
            let count = value.shape().num_elements();
            let wave: Vec<f32> = (0..count)
                .map(|at| (at as f32 * step).sin() * 0.3)
                .collect();
            let wave = Tensor::from_data(TensorData::new(wave, value.shape()), &value.device());
            let is_trained = value.is_require_grad();
            (value + wave).detach().set_require_grad(is_trained)
        })
    }
}

/// Whether a parameter belongs to a part of a name.
fn is_part(path: &str, name: &str) -> bool {
    let mut parts = PART_MODULES.iter();
    parts.any(|part| path.contains(&format!("{part}.{name}.")))
}

macro_rules! on_every_part {
    ($prepare:expr, $check:ident) => {
        on_each_device(|device| {
            for dtype in [DType::F32, DType::BF16] {
                if !device.supports_dtype(dtype) {
                    continue;
                }
                let device: Device = ($prepare)(device.clone());
                on_every_part!(@one llama, device, dtype, $check);
                on_every_part!(@one gpt2, device, dtype, $check);
                on_every_part!(@one bert, device, dtype, $check);
                on_every_part!(@one t5, device, dtype, $check);
            }
        })
    };
    (@one $make:ident, $device:ident, $dtype:expr, $check:ident) => {
        let subject = $make(&$device, $dtype);
        for part in table() {
            let what = format!("{}, {:?}, {part:?}", subject.name, $dtype);
            $check(&what, &subject, &part);
        }
    };
}

fn plain(device: Device) -> Device {
    device
}

fn tracked(device: Device) -> Device {
    device.autodiff()
}

// 1. Fresh bottlenecks are the identity. 12. Disabled, each is the base exactly.

#[test]
fn i01_i12_parts_are_switched_off_and_on() {
    fn check<M: WithRows>(what: &str, subject: &Subject<M>, part: &Part) {
        let base = subject.output(&subject.base);
        if let Part::Bottlenecks(_) = part {
            let fresh = part.fresh(subject.base.clone(), "one", 3);
            assert_same(what, &subject.output(&fresh), &base);
        }
        let model = part.add(subject.base.clone(), "one", 3);
        let output = subject.output(&model);
        assert_changed(what, &output, &base);
        let off = part.enabled(model, false);
        assert_same(what, &subject.output(&off), &base);
        let on = part.enabled(off, true);
        assert_same(what, &subject.output(&on), &output);
    }
    on_every_part!(plain, check);
}

// 3. Only what acts receives gradients; after three steps it changed, and neither the base nor what does not act did. 8. They are f32.

#[test]
fn i03_i08_only_the_part_that_acts_is_trained() {
    fn check<M: WithRows>(what: &str, subject: &Subject<M>, part: &Part) {
        let model = part.add(subject.base.clone(), "idle", 9);
        let mut model = part.add(model, "one", 3);
        let before = parameters(&model);
        let found = gradients(&model, &subject.loss(&model).backward());
        let paths: Vec<&String> = found.keys().collect();
        let expected: Vec<&String> = before.keys().filter(|path| is_part(path, "one")).collect();
        assert!(!expected.is_empty(), "{what}");
        assert_eq!(paths, expected, "{what}");
        for (path, gradient) in &found {
            assert_eq!(gradient.dtype(), DType::F32, "{what}: {path}");
        }
        let mut optimizer = AdamWConfig::new().with_weight_decay(0.1).init();
        for _ in 0..3 {
            let gradients = GradientsParams::from_grads(subject.loss(&model).backward(), &model);
            model = optimizer.step(1e-2, model, gradients);
        }
        for (path, value) in parameters(&model) {
            let is_same = before[&path] == value;
            assert_eq!(!is_same, is_part(&path, "one"), "{what}: {path}");
        }
    }
    on_every_part!(tracked, check);
}

// 9. Saved and loaded, each under a name, they give the same output. 13. Several are held; switching reproduces; the others stay.

#[test]
fn i09_i13_several_parts_are_held_switched_and_saved_by_name() {
    fn check<M: WithRows>(what: &str, subject: &Subject<M>, part: &Part) {
        let base = subject.output(&subject.base);
        let one = subject.output(&part.add(subject.base.clone(), "one", 3));
        let two = subject.output(&part.add(subject.base.clone(), "two", 7));
        assert_changed(what, &one, &two);
        let both = part.add(subject.base.clone(), "one", 3);
        let both = part.add(both, "two", 7);
        assert_eq!(part.names(&both), ["one", "two"], "{what}");
        assert_same(what, &subject.output(&both), &two);
        let first = part.activate(both.clone(), "one").unwrap();
        assert_same(what, &subject.output(&first), &one);
        let again = part.activate(first.clone(), "two").unwrap();
        assert_same(what, &subject.output(&again), &two);

        let renamed = part.rename(first.clone(), "one", "other").unwrap();
        assert_eq!(part.names(&renamed), ["other", "two"], "{what}");
        assert_same(what, &subject.output(&renamed), &one);
        let kept = part.delete(renamed.clone(), "two").unwrap();
        assert_same(what, &subject.output(&kept), &one);
        let none = part.delete(renamed, "other").unwrap();
        assert_same(what, &subject.output(&none), &base);
        let back = part.activate(none, "two").unwrap();
        assert_same(what, &subject.output(&back), &two);

        // Whichever acts, the folder has the one that was asked for.
        let read = part.moved(&first, "two", subject.base.clone(), "read");
        assert_close(
            what,
            &subject.output(&read.unwrap()),
            &two,
            apart(subject, &two, 0.0),
        );
        let swapped = part.moved(&first, "two", first.clone(), "one").unwrap();
        assert_eq!(part.names(&swapped), ["one", "two"], "{what}");
        assert_close(
            what,
            &subject.output(&swapped),
            &two,
            apart(subject, &two, 0.0),
        );

        for refused in [
            part.activate(both.clone(), "tow"),
            part.delete(both.clone(), "tow"),
            part.rename(both.clone(), "tow", "three"),
            part.moved(&both, "tow", subject.base.clone(), "three"),
        ] {
            let fault = refused.unwrap_err();
            assert!(
                fault.contains("tow") && fault.contains("one, two"),
                "{what}: {fault}"
            );
        }
        for name in ["two", "", "a.b"] {
            assert!(part.rename(both.clone(), "one", name).is_err(), "{what}");
        }
        for name in ["", "a.b"] {
            let loaded = part.moved(&both, "one", subject.base.clone(), name);
            assert!(loaded.is_err(), "{what}");
        }
    }
    on_every_part!(plain, check);
}

// 14. A batch that mixes parts, adapters of weights and the base row by row equals the rows run alone.

#[test]
fn i14_rows_with_parts_of_their_own_are_as_alone() {
    fn check<M: WithRows>(what: &str, subject: &Subject<M>, part: &Part) {
        let lora: LoraConfig = random(&subject.config());
        let model = attach(subject.base.clone(), "weights", &lora).unwrap();
        // An odd one out: another number of tokens, and another kind.
        let prompt = VirtualTokensConfig::Prompt {
            tokens: 4,
            init: PromptInit::Random,
        };
        let model = part.add(model, "one", 3);
        let model = Part::Tokens(prompt).add(model, "odd", 5);
        let only = |name: Option<&str>| {
            let alone = model.clone().with_rows(Some(&[name])).unwrap();
            subject.output(&alone)
        };
        let base = subject.output(&subject.base);
        assert_same(what, &only(None), &base);
        let alone = part.add(subject.base.clone(), "one", 3);
        assert_same(what, &only(Some("one")), &subject.output(&alone));
        for names in [
            [Some("one"), None],
            [None, Some("one")],
            [Some("one"), Some("odd")],
            [Some("odd"), Some("weights")],
            [Some("weights"), Some("one")],
        ] {
            let mixed = model.clone().with_rows(Some(&names)).unwrap();
            let mixed = subject.output(&mixed);
            for (row, name) in names.into_iter().enumerate() {
                let expected = only(name);
                let half = expected.len() / 2;
                let range = row * half..(row + 1) * half;
                let what = format!("{what}, {names:?}");
                let most = apart(subject, &expected, SAME);
                assert_close(&what, &mixed[range.clone()], &expected[range], most);
            }
        }
        match refusal(model.with_rows(Some(&[Some("noe"), None]))) {
            AdapterError::NoAdapter { name, mut present } => {
                assert_eq!(name.as_deref(), Some("noe"), "{what}");
                present.sort();
                assert_eq!(present, ["odd", "one", "weights"], "{what}");
            }
            other => panic!("{what}: {other}"),
        }
    }
    on_every_part!(plain, check);
}

// Beside adapters of weights both act, and each is switched by itself.

#[test]
fn parts_and_adapters_of_weights_act_together() {
    fn check<M: WithRows>(what: &str, subject: &Subject<M>, part: &Part) {
        let lora: LoraConfig = random(&subject.config());
        let adapted = attach(subject.base.clone(), "weights", &lora).unwrap();
        let expected = subject.output(&adapted);
        let both = part.add(adapted, "one", 3);
        let together = subject.output(&both);
        assert_changed(what, &together, &expected);
        let off = part.enabled(both.clone(), false);
        assert_same(what, &subject.output(&off), &expected);
        let alone = part.add(subject.base.clone(), "one", 3);
        let without = burn_lora::adapter::set_enabled(both.clone(), false).unwrap();
        assert_same(what, &subject.output(&without), &subject.output(&alone));
        // Nothing of the other moved.
        let untouched = |path: &String| !is_part(path, "one") && !path.contains(".lora.");
        let base = parameters(&subject.base);
        let found = parameters(&both).into_iter();
        let found = found.filter(|(path, _)| untouched(path)).collect();
        assert_same_parameters(what, &found, &base);
    }
    on_every_part!(plain, check);
}
