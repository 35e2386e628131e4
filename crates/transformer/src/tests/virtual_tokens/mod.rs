mod encoders;
mod golden;

use burn::module::{Module, Param};
use burn_lora_adapter::{DEFAULT_NAME, LoraConfig, attach};

use super::*;
use crate::{
    GenerateOptions, PromptEncoderKind, PromptInit, VirtualTokens, VirtualTokensConfig,
    VirtualTokensError, WithVirtualTokens, generate,
};

fn embedding<M: WithVirtualTokens>(model: &M) -> &Param<Tensor<2>> {
    match model.virtual_tokens().expect("attached") {
        VirtualTokens::Prompt(prompt) => &prompt.embedding,
        VirtualTokens::PTuning(prompt) => &prompt.embedding,
        VirtualTokens::Prefix(prefix) => &prefix.embedding,
    }
}

fn kinds() -> Vec<VirtualTokensConfig> {
    vec![
        VirtualTokensConfig::Prompt {
            tokens: 3,
            init: PromptInit::Random,
        },
        VirtualTokensConfig::Prompt {
            tokens: 4,
            init: PromptInit::SampleVocab,
        },
        VirtualTokensConfig::PTuning {
            tokens: 2,
            encoder: PromptEncoderKind::Mlp,
            d_hidden: 5,
        },
        VirtualTokensConfig::PTuning {
            tokens: 2,
            encoder: PromptEncoderKind::Lstm { layers: 2 },
            d_hidden: 5,
        },
        VirtualTokensConfig::Prefix {
            tokens: 3,
            projection: None,
        },
        VirtualTokensConfig::Prefix {
            tokens: 3,
            projection: Some(6),
        },
    ]
}

fn prompted() -> impl Iterator<Item = (String, Decoder, Decoder)> {
    decoders().into_iter().flat_map(|(name, base)| {
        kinds().into_iter().map(move |kind| {
            let decoder = base.clone().with_virtual_tokens(&kind, 5).expect(name);
            (format!("{name} {kind:?}"), base.clone(), decoder)
        })
    })
}

#[test]
fn they_count_and_disabled_they_do_not() {
    let rows = ids(&[&[1, 2, 3, 4], &[9, 8, 7, 6]]);
    for (name, base, decoder) in prompted() {
        let expected = base.logits(rows.clone());
        let logits = decoder.logits(rows.clone());
        assert_eq!(logits.dims(), expected.dims(), "{name}");
        let moved: f32 = (logits.clone() - expected.clone())
            .abs()
            .max()
            .into_scalar();
        assert!(moved > 1e-2, "{name}: {moved}");
        let off = decoder.clone().with_virtual_tokens_enabled(false);
        assert_eq!(
            off.logits(rows.clone()).into_data(),
            expected.clone().into_data(),
            "{name}"
        );
        let on = off.with_virtual_tokens_enabled(true);
        assert_eq!(
            on.logits(rows.clone()).into_data(),
            logits.into_data(),
            "{name}"
        );
        let without = on.without_virtual_tokens();
        assert_eq!(
            without.logits(rows.clone()).into_data(),
            expected.into_data(),
            "{name}"
        );
    }
}

#[test]
fn the_cache_and_padding_in_front_change_nothing() {
    for (name, _, decoder) in prompted() {
        let tokens: [&[u32]; 2] = [&[1, 2, 3, 4, 5, 6], &[9, 8, 7, 6, 5, 4]];
        let whole = decoder.hidden(ids(&tokens), None);
        let mut cache = decoder.new_cache(6);
        let mut parts = Vec::new();
        for range in [0..3, 3..4, 4..6] {
            let part = tokens.map(|row| &row[range.clone()]);
            parts.push(decoder.hidden_cached(ids(&part), None, &mut cache));
        }
        assert_close(&name, Tensor::cat(parts, 1), whole, 1e-4);

        let alone = decoder.logits(ids(&[&[7, 8, 9]]));
        let padding = crate::Padding::for_lengths(&[5, 3]);
        let hidden = decoder.hidden(ids(&[&[1, 2, 3, 4, 5], &[0, 0, 7, 8, 9]]), Some(&padding));
        let batch = decoder.logits_of(hidden);
        assert_close(&name, batch.slice([1..2, 2..5]), alone, 1e-4);
    }
}

#[test]
fn generation_is_what_whole_sequences_say() {
    let options = GenerateOptions {
        max_new_tokens: 5,
        ..GenerateOptions::default()
    };
    for (name, _, decoder) in
        prompted().filter(|(name, ..)| name.starts_with("llama ") || name.starts_with("gpt2 "))
    {
        let prompts = [vec![1, 2, 3], vec![9]];
        let answers = generate(&decoder, &prompts, &options).expect(&name);
        for (prompt, answer) in prompts.iter().zip(answers) {
            let mut row = prompt.clone();
            for token in answer {
                let logits = decoder.logits(ids(&[&row]));
                let last = logits.slice([0..1, row.len() - 1..row.len()]);
                let best: i32 = last.argmax(2).into_scalar();
                assert_eq!(token, best as u32, "{name}");
                row.push(token);
            }
        }
        // The virtual tokens take their positions from the model.
        let limit = 32 - decoder.virtual_tokens().expect("attached").count();
        assert_eq!(decoder.max_positions(), limit, "{name}");
        assert!(decoder.check_length(limit).is_ok() && decoder.check_length(limit + 1).is_err());
    }
}

#[test]
fn they_alone_are_trained_also_beside_lora_and_recomputed() {
    for (name, base, _) in prompted().step_by(6) {
        for kind in kinds() {
            let lora = attach(base.clone(), DEFAULT_NAME, &LoraConfig::new(2, 4.0)).expect(&name);
            let decoder = lora.with_virtual_tokens(&kind, 1).expect(&name).train();
            let gradients = |decoder: &Decoder| {
                let row = Tensor::from_data(ids(&[&[1, 2, 3, 4]]).into_data(), &decoder.device());
                let loss = decoder.logits(row).powi_scalar(2).mean();
                let gradients = loss.backward();
                Seen::of(decoder, &gradients)
            };
            let found = gradients(&decoder);
            let (ours, others): (Vec<_>, Vec<_>) = found
                .iter()
                .partition(|(path, _)| path.starts_with("prompt_encoder"));
            assert!(!ours.is_empty() && !others.is_empty(), "{name} {kind:?}");
            assert!(
                others.iter().all(|(path, _)| path.contains(".lora.")),
                "{name}: the base is frozen"
            );
            let again = gradients(&decoder.clone().with_recompute(usize::MAX));
            assert_eq!(found, again, "{name} {kind:?}");
        }
    }
}

pub(super) struct Seen<'a> {
    gradients: &'a burn::tensor::Gradients,
    path: Vec<String>,
    found: Vec<(String, TensorData)>,
}

impl Seen<'_> {
    pub(super) fn of<M: Module>(
        model: &M,
        gradients: &burn::tensor::Gradients,
    ) -> Vec<(String, TensorData)> {
        let mut seen = Seen {
            gradients,
            path: Vec::new(),
            found: Vec::new(),
        };
        model.visit(&mut seen);
        seen.found
    }
}

impl burn::module::ModuleVisitor for Seen<'_> {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.push(name.into());
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(gradient) = param.base().grad(self.gradients) {
            self.found.push((self.path.join("."), gradient.into_data()));
        }
    }
}

#[test]
fn a_text_is_repeated_and_cut_off() {
    let (_, base) = decoders().remove(0);
    let start = |tokens, text: &[u32]| {
        let init = PromptInit::Tokens(text.to_vec());
        let config = VirtualTokensConfig::Prompt { tokens, init };
        let decoder = base.clone().with_virtual_tokens(&config, 0).expect("valid");
        embedding(&decoder).val()
    };
    let words = |ids: &[i32]| {
        base.trunk
            .tokens
            .weight
            .val()
            .select(0, Tensor::from_ints(ids, &Device::flex()))
    };
    assert_close("repeated", start(5, &[4, 7]), words(&[4, 7, 4, 7, 4]), 0.0);
    assert_close("cut off", start(2, &[4, 7, 9]), words(&[4, 7]), 0.0);
    // A model that begins with a text's own tokens computes as one that is given them.
    let config = VirtualTokensConfig::Prompt {
        tokens: 2,
        init: PromptInit::Tokens(vec![4, 7]),
    };
    let decoder = base.clone().with_virtual_tokens(&config, 0).expect("valid");
    let expected = base.logits(ids(&[&[4, 7, 1, 2]])).slice([0..1, 2..4]);
    assert_close("text", decoder.logits(ids(&[&[1, 2]])), expected, 1e-5);
}

#[test]
fn a_seed_gives_the_same_tokens() {
    let (_, base) = decoders().remove(0);
    for kind in kinds() {
        let flat = |seed| {
            base.clone()
                .with_virtual_tokens(&kind, seed)
                .expect("valid")
                .virtual_tokens()
                .expect("attached")
                .flattened()
                .into_data()
        };
        assert_eq!(flat(3), flat(3), "{kind:?}");
        assert_ne!(flat(3), flat(4), "{kind:?}");
    }
}

#[test]
fn every_fault_is_named() {
    let (_, base) = decoders().remove(0);
    let faults = |config: VirtualTokensConfig| match base.clone().with_virtual_tokens(&config, 0) {
        Err(VirtualTokensError::Config { faults }) => faults,
        other => panic!("{other:?}"),
    };
    let init = PromptInit::Tokens(vec![1, 99, 100]);
    assert_eq!(
        faults(VirtualTokensConfig::Prompt { tokens: 0, init }).len(),
        3
    );
    let init = PromptInit::Tokens(Vec::new());
    assert_eq!(
        faults(VirtualTokensConfig::Prompt { tokens: 32, init }).len(),
        2
    );
    let encoder = PromptEncoderKind::Lstm { layers: 0 };
    assert_eq!(
        faults(VirtualTokensConfig::PTuning {
            tokens: 1,
            encoder,
            d_hidden: 0
        })
        .len(),
        2
    );
    assert_eq!(
        faults(VirtualTokensConfig::Prefix {
            tokens: 1,
            projection: Some(0)
        })
        .len(),
        1
    );
    assert!(matches!(
        base.save_virtual_tokens("x".as_ref(), None, &Map::new()),
        Err(VirtualTokensError::Config { .. })
    ));

    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let kind = VirtualTokensConfig::Prefix {
        tokens: 3,
        projection: None,
    };
    let decoder = base.clone().with_virtual_tokens(&kind, 0).expect("valid");
    decoder
        .save_virtual_tokens(folder, None, &Map::new())
        .expect("saved");
    let path = folder.join("adapter_config.json");
    let text = std::fs::read_to_string(&path).expect("written");
    let read = |text: &str| {
        std::fs::write(&path, text).expect("written");
        match base.clone().load_virtual_tokens(folder) {
            Err(VirtualTokensError::Folder { faults, .. }) => faults,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(read("[]").len(), 1);
    let wrong = r#"{"peft_type": "PREFIX_TUNIG", "num_virtual_tokens": 0, "num_layers": 7, "num_transformer_submodules": 2}"#;
    let found = read(wrong);
    assert_eq!(found.len(), 4, "{found:?}");
    assert!(found[0].contains("PREFIX_TUNING"), "{found:?}");
    let found = read(&text.replace("\"num_virtual_tokens\": 3", "\"num_virtual_tokens\": 5"));
    assert!(found[0].contains("prompt_embeddings is [3,"), "{found:?}");
    let other = read(&text.replace("PREFIX_TUNING", "PROMPT_TUNING"));
    assert!(!other.is_empty());
    std::fs::write(&path, &text).expect("written");
    std::fs::write(folder.join("adapter_model.safetensors"), b"nonsense").expect("written");
    assert!(matches!(
        base.clone().load_virtual_tokens(folder),
        Err(VirtualTokensError::Folder { .. })
    ));
    assert!(matches!(
        base.clone().load_virtual_tokens("nowhere".as_ref()),
        Err(VirtualTokensError::Io { .. })
    ));
}

#[test]
fn several_are_held_under_names_and_one_of_them_acts() {
    let (_, base) = decoders().remove(0);
    let rows = ids(&[&[1, 2, 3, 4]]);
    let logits = |decoder: &Decoder| decoder.logits(rows.clone()).into_data();
    let alone: Vec<Decoder> = kinds()
        .iter()
        .map(|kind| base.clone().with_virtual_tokens(kind, 5).expect("valid"))
        .collect();
    let mut all = base.clone();
    let names: Vec<String> = (0..kinds().len()).map(|n| format!("task_{n}")).collect();
    for (name, kind) in names.iter().zip(kinds()) {
        all = all.add_virtual_tokens(name, &kind, 5).expect("valid");
    }
    assert_eq!(all.virtual_token_names(), names);
    // The last to come acts; switching back reproduces.
    for round in [
        names.iter().rev().collect::<Vec<_>>(),
        names.iter().collect(),
    ] {
        for name in round {
            let place = names.iter().position(|known| known == name).expect("known");
            all = all.activate_virtual_tokens(name).expect("known");
            assert_eq!(logits(&all), logits(&alone[place]), "{name}");
        }
    }
    let renamed = all.clone().rename_virtual_tokens("task_5", "mine");
    let renamed = renamed.expect("known");
    assert_eq!(logits(&renamed), logits(&alone[5]));
    let other = renamed.clone().delete_virtual_tokens("task_0");
    assert_eq!(logits(&other.expect("known")), logits(&alone[5]));
    let deleted = renamed.delete_virtual_tokens("mine").expect("known");
    assert_eq!(logits(&deleted), logits(&base));
    assert_eq!(deleted.virtual_token_names(), names[..5]);
    let fault = |result: Result<Decoder, VirtualTokensError>| match result {
        Err(VirtualTokensError::Config { faults }) => faults.concat(),
        other => panic!("{other:?}"),
    };
    let unknown = fault(all.clone().activate_virtual_tokens("task_9"));
    assert!(
        unknown.contains("nearest") && unknown.contains("task_3"),
        "{unknown}"
    );
    for result in [
        all.clone().add_virtual_tokens("task_1", &kinds()[0], 0),
        all.clone().rename_virtual_tokens("task_1", "task_2"),
        all.clone().rename_virtual_tokens("task_1", "a.b"),
        all.clone().rename_virtual_tokens("task_9", "x"),
        all.clone().delete_virtual_tokens("task_9"),
        all.clone().add_virtual_tokens("", &kinds()[0], 0),
    ] {
        assert!(!fault(result).is_empty());
    }
    // Those that do not act are not trained.
    let device = Device::flex().autodiff();
    let mut model = Decoder::init(llama(), &device, 3).expect("valid");
    for (name, kind) in [("one", &kinds()[0]), ("two", &kinds()[4])] {
        model = model.add_virtual_tokens(name, kind, 5).expect("valid");
    }
    let row = Tensor::from_data(ids(&[&[1, 2, 3, 4]]).into_data(), &device);
    let gradients = model.logits(row).powi_scalar(2).mean().backward();
    let found = Seen::of(&model, &gradients);
    let paths: Vec<&str> = found.iter().map(|(path, _)| path.as_str()).collect();
    assert_eq!(paths, ["prompt_encoder.two.embedding"]);
}
