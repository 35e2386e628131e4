//! Rows with adapters of their own, exchange of weights, embeddings and tied heads, and what is wrong with a folder.

use std::fs;

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{DType, Device, Int, Tensor};
use burn_lora::adapter::{
    AdapterError, Columns, DEFAULT_NAME, LoraConfig, MethodConfig, Targets, attach,
    merge_and_unload, peft, peft::PeftMetadata, trainable_count, with_rows,
};
use burn_lora::transformer::{Decoder, GenerateOptions, Gpt3Shape};
use burn_lora_tests::{
    Golden, assert_close, assert_same, floats, gpt2, llama, on_each_device, random, t5,
};

use crate::common::{assert_changed, refusal};

// 14. A batch that mixes adapters (and the bare base) row by row equals the rows run alone: in generation.

#[test]
fn i14_prompts_with_adapters_of_their_own_are_continued_as_alone() {
    on_each_device(|device| {
        let subject = llama(&device, DType::F32);
        let config = random(&subject.config());
        let one = attach(subject.base.clone(), "one", &config).unwrap();
        let two = attach(one.clone(), "two", &config.clone().with_seed(9)).unwrap();
        let names = [Some("two"), None, Some("one")];
        let prompts: Vec<Vec<u32>> = vec![vec![7, 3, 11], vec![5, 31], vec![1, 30, 4, 17]];
        let options = GenerateOptions {
            max_new_tokens: 6,
            // Rows end at different steps, and the batch shrinks.
            eos: vec![2, 9, 20, 33, 41],
            ..GenerateOptions::default()
        };
        let mixed = with_rows(two.clone(), Some(&names)).unwrap();
        let together = burn_lora::transformer::generate(&mixed, &prompts, &options).unwrap();
        for (row, name) in names.iter().enumerate() {
            let alone = with_rows(two.clone(), Some(&[*name])).unwrap();
            let prompt = &prompts[row..row + 1];
            let expected = burn_lora::transformer::generate(&alone, prompt, &options).unwrap();
            assert_eq!(together[row], expected[0], "row {row}");
        }
    });
}

#[test]
fn i14_a_t5_answers_each_row_by_its_own_adapter() {
    on_each_device(|device| {
        let subject = t5(&device, DType::F32);
        let config = random(&subject.config());
        let one = attach(subject.base.clone(), "one", &config).unwrap();
        let two = attach(one, "two", &config.clone().with_seed(9)).unwrap();
        let names = [Some("two"), None, Some("one")];
        let prompts: Vec<Vec<u32>> = vec![vec![7, 3, 11], vec![5, 31], vec![1, 30, 4, 17]];
        let mixed = with_rows(two.clone(), Some(&names)).unwrap();
        let alone = |row: usize, options: &GenerateOptions| {
            let alone = with_rows(two.clone(), Some(&names[row..row + 1])).unwrap();
            let prompt = &prompts[row..row + 1];
            burn_lora::transformer::generate(&alone, prompt, options)
                .unwrap()
                .remove(0)
        };
        let free = GenerateOptions {
            max_new_tokens: 6,
            eos: Vec::new(),
            ..GenerateOptions::default()
        };
        // The first row ends at once, and the others move up.
        let ending = GenerateOptions {
            eos: vec![alone(0, &free)[0]],
            ..free.clone()
        };
        for options in [free, ending] {
            let together = burn_lora::transformer::generate(&mixed, &prompts, &options).unwrap();
            for (row, answer) in together.iter().enumerate() {
                assert_eq!(*answer, alone(row, &options), "row {row}");
            }
        }
    });
}

#[test]
fn i14_rows_that_cannot_be_told_apart_are_refused() {
    let device = Device::flex();
    let subject = llama(&device, DType::F32);
    let model = attach(subject.base.clone(), "one", &subject.config()).unwrap();
    let unknown = refusal(with_rows(model.clone(), Some(&[Some("oen")])));
    assert!(unknown.to_string().contains("oen"), "{unknown}");
    let empty = refusal(with_rows(model, Some(&[])));
    assert!(matches!(empty, AdapterError::Config { .. }), "{empty}");
    let head = subject.config().with_targets(Targets::names(["lm_head"]));
    let model = attach(subject.base.clone(), "head", &head).unwrap();
    match refusal(with_rows(model, Some(&[Some("head")]))) {
        AdapterError::NotAdaptable { layers, .. } => assert_eq!(layers, ["lm_head.weight"]),
        other => panic!("{other}"),
    }
}

// 21. Hot-swap to another rank and alpha; a missing key is allowed, an unexpected one refused.

#[test]
fn i21_weights_of_another_rank_are_swapped_in() {
    on_each_device(|device| {
        let subject = llama(&device, DType::F32);
        let wide = random(&subject.config());
        let save = |config: &LoraConfig| {
            let model = attach(subject.base.clone(), DEFAULT_NAME, config).unwrap();
            let folder = tempfile::tempdir().unwrap();
            let metadata = PeftMetadata::default();
            peft::save(&model, DEFAULT_NAME, config, &metadata, folder.path()).unwrap();
            (subject.output(&model), folder)
        };
        let serving = attach(subject.base.clone(), "serving", &wide).unwrap();
        let narrow = LoraConfig {
            rank: 2,
            alpha: 7.0,
            ..random(&subject.config())
        }
        .with_seed(4);
        let fewer = narrow.clone().with_targets(Targets::names(["q_proj"]));
        for config in [
            &narrow,
            &fewer,
            &narrow.clone().with_method(MethodConfig::Dora),
        ] {
            let (expected, folder) = save(config);
            let (swapped, read) =
                peft::hot_swap(serving.clone(), "serving", folder.path()).unwrap();
            assert_close("swapped", &subject.output(&swapped), &expected, 1e-6);
            assert_eq!(read.rank, 2);
        }
        let (_, folder) = save(
            &narrow
                .clone()
                .with_targets(Targets::names(["q_proj", "o_proj"])),
        );
        let before = subject.output(&serving);
        match refusal(peft::hot_swap(serving.clone(), "serving", folder.path())) {
            AdapterError::Tensors { faults, .. } => assert_eq!(faults.len(), 4),
            other => panic!("{other}"),
        }
        assert_same("refused", &subject.output(&serving), &before);
    });
}

// 22. Tied weights: adapting the embedding leaves the head as PEFT does; new tokens are new for both; folding asks.

#[test]
fn i22_a_tied_head_sees_new_tokens_and_no_adapter_of_the_embedding() {
    on_each_device(|device| {
        let base = Golden::open("llama_tied").base(&device);
        let targets = Targets::names(["embed_tokens"]);
        let lora = random(&LoraConfig::new(3, 6.0).with_targets(targets.clone()));
        let adapted = attach(base.clone(), DEFAULT_NAME, &lora).unwrap();
        let hidden = base.hidden(Tensor::from_data([[3, 4, 5]], &device), None);
        let head = |model: &Decoder| floats(model.logits_of(hidden.clone()));
        assert_same("the head", &head(&adapted), &head(&base));
        let ids = Tensor::<2, Int>::from_data([[3, 4, 5]], &device);
        let plain = floats(base.logits(ids.clone()));
        assert_changed("the embedding", &floats(adapted.logits(ids)), &plain);
        match refusal(merge_and_unload(adapted)) {
            AdapterError::NotAdaptable { layers, kind } => {
                assert_eq!(layers, ["model.embed_tokens"]);
                assert!(kind.contains("head"), "{kind}");
            }
            other => panic!("{other}"),
        }
        let tokens = random(&LoraConfig::new(1, 1.0).with_method(MethodConfig::Tokens(vec![4, 9])));
        let adapted = attach(base.clone(), DEFAULT_NAME, &tokens).unwrap();
        assert_changed("the head's rows", &head(&adapted), &head(&base));
        let merged = merge_and_unload(adapted.clone()).unwrap();
        assert_close("merged", &head(&merged), &head(&adapted), 1e-5);
    });
}

// Bad input: one error listing every fault, base untouched.

#[test]
fn a_configuration_with_many_faults_lists_them_all() {
    let device = Device::flex();
    let subject = llama(&device, DType::F32);
    let folder = tempfile::tempdir().unwrap();
    let model = attach(subject.base.clone(), DEFAULT_NAME, &subject.config()).unwrap();
    let metadata = PeftMetadata::default();
    peft::save(
        &model,
        DEFAULT_NAME,
        &subject.config(),
        &metadata,
        folder.path(),
    )
    .unwrap();
    let path = folder.path().join(peft::CONFIG_FILE);
    let good = fs::read_to_string(&path).unwrap();
    let refuse = |text: &str| {
        fs::write(&path, text).unwrap();
        refusal(peft::load(
            subject.base.clone(),
            DEFAULT_NAME,
            folder.path(),
        ))
        .to_string()
    };
    let with = |changes: &[(&str, serde_json::Value)]| {
        let mut map: serde_json::Map<_, _> = serde_json::from_str(&good).unwrap();
        for (field, value) in changes {
            map.insert(field.to_string(), value.clone());
        }
        serde_json::to_string(&map).unwrap()
    };
    let error = refuse(&with(&[
        ("r", "four".into()),
        ("lora_alpha", true.into()),
        ("use_rslora", 1.into()),
    ]));
    for word in ["r is \"four\"", "lora_alpha is true", "use_rslora is 1"] {
        assert!(error.contains(word), "{error}");
    }
    assert!(refuse("no json").contains("not a PEFT configuration"));
    let error = refuse(&with(&[
        ("peft_type", "LORAX".into()),
        ("layer_replication", serde_json::json!([[0, 2]])),
    ]));
    assert!(
        error.contains("did you mean LORA") && error.contains("layer_replication"),
        "{error}"
    );
    let error = refuse(&with(&[("r", 0.into()), ("lora_dropout", 2.0.into())]));
    assert!(
        error.contains("rank (r) is 0") && error.contains("lora_dropout"),
        "{error}"
    );
    let error = refuse(&with(&[("r", 33.into())]));
    assert!(
        error.contains("rank 33 exceeds") && error.contains("layers.1"),
        "{error}"
    );
    // Another method than the tensors are of.
    let error = refuse(&with(&[("use_dora", true.into())]));
    assert!(error.contains("lora_magnitude_vector"), "{error}");
    // Another base.
    fs::write(&path, &good).unwrap();
    let other = Golden::open("qwen2").base(&device);
    let error = refusal(peft::load(other, DEFAULT_NAME, folder.path())).to_string();
    assert!(error.contains("has the shape"), "{error}");
    // A field of a newer version comes back.
    fs::write(
        &path,
        with(&[("of_tomorrow", serde_json::json!({"x": [1, 2]}))]),
    )
    .unwrap();
    let read = peft::read_config(folder.path()).unwrap();
    assert_eq!(read.other["of_tomorrow"]["x"][1], 2);
}

#[test]
fn parts_of_a_fused_projection_are_lora_on_the_whole_in_a_file() {
    let device = Device::flex();
    let subject = gpt2(&device, DType::F32);
    let columns = Columns::Equal {
        of: 3,
        keep: vec![0, 2],
    };
    let config = LoraConfig {
        rank: 3,
        ..subject.config()
    };
    let config =
        random(&config.with_targets(Targets::names(["c_attn"]))).with_parts("c_attn", columns);
    let model = attach(subject.base.clone(), DEFAULT_NAME, &config).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let metadata = PeftMetadata::default();
    peft::save(&model, DEFAULT_NAME, &config, &metadata, folder.path()).unwrap();
    let (whole, _) = peft::load(subject.base.clone(), DEFAULT_NAME, folder.path()).unwrap();
    assert_close(
        "whole",
        &subject.output(&whole),
        &subject.output(&model),
        1e-5,
    );
    // The keys are not touched: 10 of 30 columns.
    let weight = &burn_lora::adapter::adapted_weights(&whole)[0];
    let delta = weight.stack.get(DEFAULT_NAME).unwrap().delta();
    let keys = floats(delta.clone().slice([0..30, 30..60]));
    assert!(keys.iter().all(|value| *value == 0.0));
    let queries = floats(delta.slice([0..30, 0..30]));
    assert!(queries.iter().any(|value| *value != 0.0));
    let wrong = Columns::Equal {
        of: 7,
        keep: vec![0],
    };
    let bad = LoraConfig {
        parts: vec![("c_attn".into(), wrong)],
        ..config
    };
    let error = refusal(attach(subject.base.clone(), DEFAULT_NAME, &bad)).to_string();
    assert!(
        error.contains("90 columns are not 7 equal parts"),
        "{error}"
    );
}

// 4. The paper's GPT-3: r = 4 on queries and values of 96 layers.

#[test]
fn i04_gpt3_has_the_count_of_the_paper() {
    let shape = Gpt3Shape::named("175b").unwrap();
    let (layers, width) = (shape.n_layers, shape.d_model);
    let widths = std::iter::repeat_n([width, width], 2 * layers);
    assert_eq!(trainable_count(4, widths), 18_874_368);
}

// LoRA+: the up-projections are trained at a multiple of the learning rate, and nothing else is.

#[test]
fn up_projections_have_a_learning_rate_of_their_own() {
    use burn_lora::train::{TrainConfig, learning_rates};
    let device = Device::flex().autodiff();
    let subject = gpt2(&device, DType::F32);
    for word in ["lora", "dora"] {
        let config = subject.config().with_method(word.parse().unwrap());
        let model = attach(
            subject.base.clone(),
            DEFAULT_NAME,
            &config.with_lora_bias(true),
        );
        let model = model.unwrap();
        let train = TrainConfig {
            lora_plus_ratio: Some(16.0),
            ..TrainConfig::default()
        };
        let rates = learning_rates(&model, &train).step();
        let mut visitor = Rates(Vec::new(), rates, Vec::new());
        model.visit(&mut visitor);
        assert!(visitor.2.len() > 8);
        for (path, rate) in visitor.2 {
            let is_up = path.ends_with(".b")
                || path.ends_with(".magnitude")
                || path.ends_with(".bias.lora.default.delta");
            let expected = if is_up { 16.0 } else { 1.0 } * visitor.1.base();
            assert!((rate - expected).abs() < 1e-12, "{word}: {path} has {rate}");
        }
    }
}

struct Rates(
    Vec<String>,
    burn::lr_scheduler::module_lr_scheduler::ModuleLearningRate,
    Vec<(String, f64)>,
);

impl ModuleVisitor for Rates {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.0.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.0.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let rate = self.1.lr_from_param(param.id, None);
        self.2.push((self.0.join("."), rate));
    }
}

#[test]
fn every_parameter_of_an_adapter_only_module_is_an_adapters() {
    use burn_lora::adapter::{AdapterOnly, budget::RankAllocator};
    let device = Device::flex().autodiff();
    let subject = llama(&device, DType::F32);
    let config = random(&subject.config()).with_method("adalora".parse().unwrap());
    let model = AdapterOnly::new(attach(subject.base.clone(), DEFAULT_NAME, &config).unwrap());
    assert!(
        RankAllocator::of(&model).is_some(),
        "the allocator sees through"
    );
    assert!(model.num_params() > 0);
}
