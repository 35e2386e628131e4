//! Virtual tokens in front of encoders and of T5, on tiny models of every family.

use burn::tensor::DType;

use super::super::encoder_families::{encoder, encoders};
use super::super::t5;
use super::*;
use crate::{Encoder, EncoderBatch, SequenceClassifier, T5, TokenClassifier};

fn batch(rows: &[&[u32]], lengths: &[usize]) -> EncoderBatch {
    EncoderBatch::new(ids(rows), lengths)
}

/// The states of the first row's tokens.
fn row(hidden: Tensor<3>, places: std::ops::Range<usize>) -> Tensor<3> {
    hidden.slice([0..1, places])
}

#[test]
fn encoders_count_them_and_disabled_they_do_not() {
    for (name, config) in encoders() {
        let base = encoder(&config);
        let two = || batch(&[&[7, 8, 9, 10], &[4, 5, 0, 0]], &[4, 2]);
        let expected = base.hidden(&two());
        for kind in kinds() {
            let name = format!("{name} {kind:?}");
            let model = base.clone().with_virtual_tokens(&kind, 5).expect(&name);
            let hidden = model.hidden(&two());
            assert_eq!(hidden.dims(), expected.dims(), "{name}");
            let moved = row(hidden.clone(), 0..4) - row(expected.clone(), 0..4);
            let moved: f32 = moved.abs().max().into_scalar();
            assert!(moved > 1e-2, "{name}: {moved}");
            // Padding is no neighbour of anything.
            let alone = model.hidden(&batch(&[&[4, 5]], &[2]));
            assert_close(&name, hidden.slice([1..2, 0..2]), alone, 1e-4);
            let off = model.clone().with_virtual_tokens_enabled(false);
            assert_eq!(
                off.hidden(&two()).into_data(),
                expected.clone().into_data(),
                "{name}"
            );
            assert_eq!(
                model.without_virtual_tokens().hidden(&two()).into_data(),
                expected.clone().into_data(),
                "{name}"
            );
        }
    }
}

fn text(tokens: &[u32]) -> VirtualTokensConfig {
    VirtualTokensConfig::Prompt {
        tokens: tokens.len(),
        init: PromptInit::Tokens(tokens.to_vec()),
    }
}

#[test]
fn an_encoder_that_begins_with_a_text_computes_as_one_that_is_given_it() {
    for (name, config) in encoders() {
        let base = encoder(&config);
        let expected = base.hidden(&batch(&[&[4, 7, 9, 2, 8]], &[5]));
        let model = base.with_virtual_tokens(&text(&[4, 7]), 0).expect(name);
        let hidden = model.hidden(&batch(&[&[9, 2, 8]], &[3]));
        assert_close(name, hidden, row(expected, 2..5), 1e-5);
    }
}

#[test]
fn what_pools_sees_embeddings_and_no_prefix() {
    for (name, config) in encoders() {
        let model = SequenceClassifier::init(config, &Device::flex(), 3).expect(name);
        let expected = model.forward(&batch(&[&[4, 7, 9, 2, 8]], &[5]));
        let prompted = model.clone().with_virtual_tokens(&text(&[4, 7]), 0);
        let logits = prompted.expect(name).forward(&batch(&[&[9, 2, 8]], &[3]));
        assert_close(name, logits, expected, 1e-5);
        let prefix = &kinds()[4];
        let prefixed = model.with_virtual_tokens(prefix, 0).expect(name);
        let hidden = prefixed.encoder.hidden(&batch(&[&[9, 2, 8]], &[3]));
        let first = hidden.slice([0..1, 0..1]).squeeze_dim::<2>(1);
        let expected = prefixed.head.logits(first, &prefixed.encoder);
        let logits = prefixed.forward(&batch(&[&[9, 2, 8]], &[3]));
        assert_close(name, logits, expected, 1e-5);
    }
}

/// A block sees the keys and values that it makes of tokens as a prefix that holds them.
#[test]
fn a_prefix_is_keys_and_values() {
    for (name, mut config) in encoders() {
        match &mut config {
            crate::EncoderConfig::Bert(config) => config.num_hidden_layers = 1,
            crate::EncoderConfig::DistilBert(config) => config.n_layers = 1,
            crate::EncoderConfig::Deberta(config) => {
                // It would see the embeddings of its neighbours, which a prefix has not.
                config.conv_kernel_size = 0;
                config.num_hidden_layers = 1;
            }
            // Its keys are turned between projection and attention.
            crate::EncoderConfig::ModernBert(_) => continue,
        }
        let base = encoder(&config);
        let whole = batch(&[&[4, 7, 9, 2, 8]], &[5]);
        let embedded = base.embeddings.forward(&whole, None);
        let [_, keys, values] = base.layers[0].qkv.forward(embedded); // [1, 5, heads, d_head] each
        let flat = |x: Tensor<4>| x.narrow(1, 0, 2).reshape([2, 16]);
        let embedding = Param::from_tensor(Tensor::cat(vec![flat(keys), flat(values)], 1));
        let prefix = VirtualTokens::Prefix(crate::PrefixTuning {
            embedding,
            projection: None,
        });
        let model = base.clone().with_these_virtual_tokens(prefix).expect(name);
        let hidden = model.hidden(&batch(&[&[9, 2, 8]], &[3]));
        assert_close(name, hidden, row(base.hidden(&whole), 2..5), 1e-5);
    }
}

#[test]
fn they_take_positions_and_rows_know_their_limits() {
    for (name, config) in encoders() {
        let model = encoder(&config);
        let limit = model.max_length();
        let model = model.with_virtual_tokens(&kinds()[0], 0).expect(name);
        assert_eq!(model.max_length(), limit - 3, "{name}");
        assert!(model.check_length(limit - 3).is_ok() && model.check_length(limit - 2).is_err());
        assert!(model.batch(&[vec![4; limit - 2]], None).is_err(), "{name}");
        let longest = model.batch(&[vec![4; limit - 3]], None).expect(name);
        model.hidden(&longest);
    }
}

#[test]
fn they_alone_are_trained_in_encoders_also_recomputed() {
    for (name, config) in encoders() {
        for kind in kinds() {
            let base = encoder(&config);
            let model = base.with_virtual_tokens(&kind, 1).expect(name).train();
            let found = |model: &Encoder| {
                let device = model.device();
                let ids = Tensor::from_data(ids(&[&[1, 2, 3, 4]]).into_data(), &device);
                let hidden = model.hidden(&EncoderBatch::new(ids, [4]));
                let gradients = hidden.powi_scalar(2).mean().backward();
                Seen::of(model, &gradients)
            };
            let kept = found(&model);
            assert!(!kept.is_empty(), "{name} {kind:?}");
            assert!(
                kept.iter().all(|(path, _)| path.contains("prompt_encoder")),
                "{name}: the base is frozen"
            );
            let again = found(&model.with_recompute(usize::MAX));
            assert_eq!(kept, again, "{name} {kind:?}");
        }
    }
}

/// PEFT saves the head of a model that classifies beside whatever is trained.
#[test]
fn the_head_goes_along() {
    let config = super::super::encoders::config();
    let model = |seed| TokenClassifier::init(config.clone(), &Device::flex(), seed).expect("valid");
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let trained = model(9).with_virtual_tokens(&kinds()[0], 0).expect("valid");
    trained
        .save_virtual_tokens(folder, None, &Map::new())
        .expect("saved");
    // The card of the folder is brought up to date, and keeps its words.
    let card = folder.join("README.md");
    std::fs::write(&card, "---\nlicense: mit\n---\n# Mine\n").expect("written");
    trained
        .save_virtual_tokens(folder, Some("org/base"), &Map::new())
        .expect("saved");
    let text = std::fs::read_to_string(&card).expect("there");
    for line in [
        "license: mit",
        "base_model: org/base",
        "- prompt_tuning",
        "# Mine",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}: {text}");
    }
    let (loaded, fields) = model(3).load_virtual_tokens(folder).expect("read");
    assert_eq!(fields["task_type"], "TOKEN_CLS");
    assert_eq!(
        fields["modules_to_save"],
        serde_json::json!(["classifier", "score"])
    );
    let weight = |model: &TokenClassifier| {
        let output = model.head.output.as_ref().expect("a linear layer");
        output.weight.val()
    };
    assert_close("head", weight(&loaded), weight(&trained), 0.0);
    // Neither without its head, nor in front of a model that has none.
    match Encoder::init(config.clone(), &Device::flex(), 3)
        .expect("valid")
        .load_virtual_tokens(folder)
    {
        Err(VirtualTokensError::Folder { faults, .. }) => assert_eq!(faults.len(), 2, "{faults:?}"),
        other => panic!("{other:?}"),
    }
    let bare = Encoder::init(config.clone(), &Device::flex(), 3).expect("valid");
    let bare = bare.with_virtual_tokens(&kinds()[0], 0).expect("valid");
    bare.save_virtual_tokens(folder, None, &Map::new())
        .expect("saved");
    let path = folder.join("adapter_config.json");
    let text = std::fs::read_to_string(&path).expect("written");
    std::fs::write(&path, text.replace("FEATURE_EXTRACTION", "TOKEN_CLS")).expect("written");
    match model(3).load_virtual_tokens(folder) {
        Err(VirtualTokensError::Folder { faults, .. }) => {
            assert_eq!(
                faults,
                [
                    "missing base_model.classifier.bias [3]",
                    "missing base_model.classifier.weight [3, 16]"
                ]
            );
        }
        other => panic!("{other:?}"),
    }
}

fn written(model: &T5) -> Tensor<3> {
    let two = batch(&[&[7, 8, 9, 10], &[4, 5, 0, 0]], &[4, 2]);
    t5::logits(model, &two, &[&[0, 3, 4, 5], &[0, 9, 8, 7]])
}

#[test]
fn t5_reads_embeddings_and_writes_behind_a_prefix() {
    let base = t5::model(t5::config());
    let expected = written(&base);
    for kind in kinds() {
        let name = format!("{kind:?}");
        let model = base.clone().with_virtual_tokens(&kind, 5).expect(&name);
        let logits = written(&model);
        assert_eq!(logits.dims(), expected.dims(), "{name}");
        let moved: f32 = (logits.clone() - expected.clone())
            .abs()
            .max()
            .into_scalar();
        assert!(moved > 1e-2, "{name}: {moved}");
        let alone = t5::logits(&model, &batch(&[&[4, 5]], &[2]), &[&[0, 9, 8]]);
        assert_close(&name, logits.slice([1..2, 0..3]), alone, 2e-4);
        let is_prefix = matches!(kind, VirtualTokensConfig::Prefix { .. });
        let states = model.encode(&batch(&[&[4, 5]], &[2])).hidden.dims()[1];
        let virtual_ones = if is_prefix { 0 } else { kind.tokens() };
        assert_eq!(states, 2 + virtual_ones, "{name}");
        let off = model.with_virtual_tokens_enabled(false);
        assert_eq!(
            written(&off).into_data(),
            expected.clone().into_data(),
            "{name}"
        );
    }
    // As if it had been given the text.
    let expected = t5::logits(&base, &batch(&[&[4, 7, 9, 2]], &[4]), &[&[0, 3, 5]]);
    let model = base.with_virtual_tokens(&text(&[4, 7]), 0).expect("valid");
    let logits = t5::logits(&model, &batch(&[&[9, 2]], &[2]), &[&[0, 3, 5]]);
    assert_close("text", logits, expected, 1e-4);
}

#[test]
fn t5_generates_what_whole_sequences_say() {
    let options = GenerateOptions {
        max_new_tokens: 5,
        ..GenerateOptions::default()
    };
    for kind in kinds() {
        let base = t5::model(t5::config());
        let model = base.with_virtual_tokens(&kind, 5).expect("valid");
        let prompts = [vec![7, 8, 9], vec![4]];
        let answers = generate(&model, &prompts, &options).expect("generated");
        for (prompt, answer) in prompts.iter().zip(answers) {
            let read = model.encode(&model.batch(std::slice::from_ref(prompt)).expect("valid"));
            let mut row = vec![0];
            for token in answer {
                let logits = model.logits_of(model.decode(ids(&[&row]), &read));
                let last = logits.slice([0..1, row.len() - 1..row.len()]);
                let best: i32 = last.argmax(2).into_scalar();
                assert_eq!(token, best as u32, "{kind:?}");
                row.push(token);
            }
        }
    }
}

/// PEFT has rows for the decoder, which nothing reads; of other widths are heads that do not add up to the model's.
#[test]
fn a_folder_of_t5_has_rows_for_two_stacks() {
    let base = t5::model(t5::config());
    let folder = tempfile::tempdir().expect("a folder");
    for kind in [&kinds()[0], &kinds()[4]] {
        let model = base.clone().with_virtual_tokens(kind, 5).expect("valid");
        model
            .save_virtual_tokens(folder.path(), None, &Map::new())
            .expect("saved");
        let (again, fields) = base
            .clone()
            .load_virtual_tokens(folder.path())
            .expect("read");
        assert_eq!(written(&again).into_data(), written(&model).into_data());
        assert_eq!(fields["num_transformer_submodules"], 2);
        let is_prefix = matches!(kind, VirtualTokensConfig::Prefix { .. });
        let bytes = std::fs::read(folder.path().join("adapter_model.safetensors")).expect("there");
        let file = safetensors::SafeTensors::deserialize(&bytes).expect("safetensors");
        let shape = file.tensor("prompt_embeddings").expect("there");
        // 3 blocks of the decoder, keys and values of 2 heads of 6.
        let expected = if is_prefix { [3, 3 * 2 * 12] } else { [6, 16] };
        assert_eq!(shape.shape(), expected);
    }
    let decoder = Decoder::init(llama(), &Device::flex(), 3).expect("valid");
    assert!(decoder.load_virtual_tokens(folder.path()).is_err());
}

#[test]
fn half_precision_keeps_them_in_full() {
    let folder = tempfile::tempdir().expect("a folder");
    let model = t5::model(t5::config());
    model.save(folder.path(), DType::BF16).expect("saved");
    let options = crate::LoadOptions::new(DType::BF16, Device::flex());
    let base = T5::load(folder.path(), &options).expect("loaded");
    for kind in kinds() {
        let model = base.clone().with_virtual_tokens(&kind, 5).expect("valid");
        assert_eq!(embedding(&model).val().dtype(), DType::F32);
        assert_eq!(written(&model).dtype(), DType::BF16);
    }
}
