//! Folders that contradict themselves, and what a load can be told.

use std::fs;
use std::sync::{Arc, Mutex};

use super::loading::{Tensors, changed, load, mismatch, options, shard, vector};
use super::*;
use crate::{FileFault, LoadError, LoadOptions, LoadProgress, NewRows};
use burn::tensor::DType;
use half::bf16;
use safetensors::Dtype;

/// Overwrites one number of a tensor.
fn poke(tensors: &mut Tensors, name: &str, at: usize, value: f32) {
    let (_, _, bytes) = tensors.get_mut(name).expect("there");
    bytes[4 * at..4 * at + 4].copy_from_slice(&value.to_le_bytes());
}

const UP: &str = "model.layers.0.mlp.up_proj.weight";

#[test]
fn every_tensor_that_is_not_finite_is_named_with_its_first_position() {
    let dir = changed(llama(), |tensors| {
        poke(tensors, UP, 16 * 3 + 5, f32::NAN);
        poke(tensors, UP, 16 * 20, f32::INFINITY);
        poke(tensors, "model.norm.weight", 2, f32::NEG_INFINITY);
    });
    let error = load(dir.path()).expect_err("refused");
    let LoadError::NotFinite { tensors } = &error else {
        panic!("{error}")
    };
    let found: Vec<_> = tensors
        .iter()
        .map(|t| (t.tensor.as_str(), t.position.as_slice(), t.count))
        .collect();
    assert_eq!(
        found,
        [(UP, &[3, 5][..], 2), ("model.norm.weight", &[2], 1)]
    );
    let text = error.to_string();
    assert!(
        text.contains("up_proj.weight in model.safetensors: NaN at [3, 5], and 1 more"),
        "{text}"
    );
    let allowed = Decoder::load(dir.path(), &options().with_not_finite());
    allowed.expect("allowed");
}

#[test]
fn a_number_too_large_for_the_dtype_is_named() {
    let dir = changed(llama(), |tensors| poke(tensors, UP, 7, 1e6));
    load(dir.path()).expect("f32 holds it");
    let half = LoadOptions::new(DType::F16, Device::flex());
    let error = Decoder::load(dir.path(), &half)
        .expect_err("refused")
        .to_string();
    assert!(
        error.contains("1000000 at [0, 7], too large for F16"),
        "{error}"
    );
    let brain = LoadOptions::new(DType::BF16, Device::flex());
    Decoder::load(dir.path(), &brain).expect("bf16 holds it");
}

#[test]
fn a_configuration_that_contradicts_the_weights_names_tensor_file_and_both_shapes() {
    for (field, value, tensor, expected) in [
        ("vocab_size", 30, "lm_head.weight", vec![30, 16]),
        ("hidden_size", 20, "model.norm.weight", vec![20]),
        ("intermediate_size", 25, UP, vec![25, 16]),
        (
            "num_key_value_heads",
            4,
            "model.layers.1.self_attn.k_proj.weight",
            vec![24, 16],
        ),
    ] {
        let dir = changed(llama(), |_| {});
        edit(dir.path(), field, value.into());
        let found = mismatch(dir.path());
        let shape = found.mis_shaped.iter().find(|shape| shape.name == tensor);
        let shape = shape.unwrap_or_else(|| panic!("{field}: {found}"));
        assert_eq!(shape.expected, expected, "{field}");
        assert_eq!(shape.file, "model.safetensors");
        assert_ne!(shape.found, expected);
    }
}

fn edit(dir: &std::path::Path, field: &str, value: serde_json::Value) {
    let path = dir.join("config.json");
    let text = fs::read_to_string(&path).expect("read");
    let mut config: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    config[field] = value;
    fs::write(path, config.to_string()).expect("written");
}

#[test]
fn sizes_that_no_model_has_allocate_nothing() {
    let dir = changed(llama(), |_| {});
    edit(dir.path(), "num_hidden_layers", 60_000.into());
    let error = load(dir.path()).expect_err("refused");
    assert!(
        matches!(error, LoadError::Layers { layers: 60_000, .. }),
        "{error}"
    );
    for field in [
        "num_hidden_layers",
        "hidden_size",
        "vocab_size",
        "num_attention_heads",
        "head_dim",
    ] {
        let dir = changed(llama(), |_| {});
        edit(dir.path(), field, u64::MAX.into());
        let error = load(dir.path()).expect_err("refused").to_string();
        assert!(error.contains(field) && error.contains("2^24"), "{error}");
    }
    // The largest that is read, everywhere at once.
    let dir = changed(llama(), |_| {});
    for field in [
        "hidden_size",
        "intermediate_size",
        "vocab_size",
        "num_attention_heads",
        "num_key_value_heads",
        "head_dim",
    ] {
        edit(dir.path(), field, (1 << 24).into());
    }
    let error = load(dir.path()).expect_err("refused");
    assert!(matches!(error, LoadError::Mismatch { .. }), "{error}");
}

#[test]
fn more_experts_than_tensors_allocate_nothing() {
    for (name, decoder) in decoders() {
        let field = match name {
            "mixtral" => "num_local_experts",
            "qwen3_moe" => "num_experts",
            _ => continue,
        };
        let dir = tempfile::tempdir().expect("a folder");
        decoder.save(dir.path(), DType::F32).expect("saved");
        edit(dir.path(), field, 60_000.into());
        let error = load(dir.path()).expect_err("refused");
        assert!(
            matches!(error, LoadError::Layers { layers, .. } if layers >= 60_000),
            "{name}: {error}"
        );
    }
}

#[test]
fn heads_that_do_not_divide_the_width_are_refused() {
    let dir = changed(llama(), |_| {});
    edit(dir.path(), "head_dim", serde_json::Value::Null);
    edit(dir.path(), "num_attention_heads", 6.into());
    let error = load(dir.path()).expect_err("refused").to_string();
    assert!(
        error.contains("`hidden_size` 16 is not a multiple of `num_attention_heads` 6"),
        "{error}"
    );
}

#[test]
fn a_damaged_header_is_told_with_its_file() {
    let dir = changed(llama(), |_| {});
    let path = dir.path().join("model.safetensors");
    let bytes = fs::read(&path).expect("read");
    let mut lying = bytes.clone();
    lying[..8].copy_from_slice(&(1u64 << 60).to_le_bytes());
    fs::write(&path, lying).expect("written");
    let error = load(dir.path()).expect_err("refused");
    let LoadError::Damaged {
        path: found,
        faults,
    } = &error
    else {
        panic!("{error}")
    };
    assert_eq!(*found, path);
    assert!(
        matches!(faults[..], [FileFault::HeaderBeyondFile { header, .. }] if header == 1 << 60)
    );
    fs::write(&path, &bytes[..bytes.len() - 4]).expect("written");
    let error = load(dir.path()).expect_err("refused").to_string();
    assert!(
        error.contains("model.safetensors is damaged:\n  1 tensors, `"),
        "{error}"
    );
}

#[test]
fn an_index_is_compared_with_what_the_shards_hold() {
    let dir = changed(llama(), |_| {});
    shard(dir.path());
    let path = dir.path().join("model.safetensors.index.json");
    let text = fs::read_to_string(&path).expect("read");
    let mut index: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let at = index["weight_map"]["model.norm.weight"]
        .as_str()
        .expect("a file");
    let other = if at.contains('0') {
        "part-1.safetensors"
    } else {
        "part-0.safetensors"
    };
    let expected = format!("`model.norm.weight` is in `{at}`, not in `{other}`");
    index["weight_map"]["model.norm.weight"] = other.into();
    fs::write(&path, index.to_string()).expect("written");
    let error = load(dir.path()).expect_err("refused").to_string();
    assert!(error.contains(&expected), "{error}");
    for (text, part) in [
        ("", "EOF"),
        ("[]", "weight_map"),
        ("{\"weight_map\": 3}", "weight_map"),
    ] {
        fs::write(&path, text).expect("written");
        let error = load(dir.path()).expect_err("refused").to_string();
        assert!(
            error.contains(part) && error.contains("index.json"),
            "{error}"
        );
    }
}

#[test]
fn a_tensor_in_two_shards_is_refused() {
    let dir = changed(llama(), |_| {});
    shard(dir.path());
    let (one, two) = (
        dir.path().join("part-0.safetensors"),
        dir.path().join("part-1.safetensors"),
    );
    fs::copy(one, two).expect("copied");
    let error = load(dir.path()).expect_err("refused").to_string();
    assert!(error.contains("is in more than one file"), "{error}");
    assert!(error.contains("and ") && error.contains(" more"), "{error}");
}

#[test]
fn a_tokenizer_larger_than_the_embedding_is_refused_or_gets_rows() {
    for (name, config) in configs() {
        let dir = changed(config, |_| {});
        Decoder::load(dir.path(), &options().with_tokens(31)).expect("as many");
        Decoder::load(dir.path(), &options().with_tokens(20)).expect("fewer");
        let error = Decoder::load(dir.path(), &options().with_tokens(34)).expect_err("refused");
        assert!(
            matches!(
                error,
                LoadError::Vocabulary {
                    tokens: 34,
                    embedding: 31,
                    ..
                }
            ),
            "{error}"
        );
        let text = error.to_string();
        assert!(text.contains("34 tokens, the embedding 31 rows"), "{text}");

        let before = load(dir.path()).expect("loaded");
        for new_rows in [NewRows::Mean, NewRows::Normal { seed: 3 }] {
            let options = options().with_tokens(34).with_new_rows(new_rows);
            let (after, report) = Decoder::load_reported(dir.path(), &options).expect("resized");
            assert_eq!(report.new_rows, 3, "{name}");
            assert_eq!((after.vocab_size(), after.config().vocab_size()), (34, 34));
            let tokens = ids(&[&[1, 2, 30]]);
            let known = after.logits(tokens.clone()).slice([0..1, 0..3, 0..31]);
            assert_close(name, known, before.logits(tokens), 1e-5);
            // A new token is known, and saved with the rest.
            let logits = after.logits(ids(&[&[33, 1]]));
            let again = tempfile::tempdir().expect("a folder");
            after.save(again.path(), DType::F32).expect("saved");
            let again = load(again.path()).expect("loaded");
            assert_close(name, again.logits(ids(&[&[33, 1]])), logits, 0.0);
        }
    }
}

#[test]
fn a_new_row_is_the_mean_of_the_others() {
    let dir = changed(gpt2(), |_| {});
    let options = options().with_tokens(33).with_new_rows(NewRows::Mean);
    let decoder = Decoder::load(dir.path(), &options).expect("resized");
    let rows = decoder.trunk.tokens.weight.val(); // [33, n_embd]
    let mean = rows.clone().slice([0..31, 0..16]).mean_dim(0);
    assert_close(
        "new",
        rows.clone().slice([31..32, 0..16]),
        mean.clone(),
        1e-6,
    );
    assert_close("newest", rows.slice([32..33, 0..16]), mean, 1e-6);
}

#[test]
fn progress_counts_every_tensor_and_byte() {
    let dir = changed(llama(), |_| {});
    let seen: Arc<Mutex<Vec<LoadProgress>>> = Arc::default();
    let callback = seen.clone();
    let options =
        options().with_progress(move |progress| callback.lock().expect("alone").push(*progress));
    let (_, report) = Decoder::load_reported(dir.path(), &options).expect("loaded");
    let seen = seen.lock().expect("alone");
    let last = seen.last().expect("called");
    assert_eq!(seen.len(), last.total_tensors);
    assert_eq!(
        (last.tensors, last.bytes),
        (last.total_tensors, last.total_bytes)
    );
    assert_eq!((report.tensors, report.bytes), (last.tensors, last.bytes));
    let parameters = DecoderConfig::from(llama()).parameters();
    assert_eq!(last.total_bytes, 4 * parameters);
    assert!(seen.windows(2).all(|two| two[0].bytes < two[1].bytes));
}

#[test]
fn half_precision_files_load_bit_by_bit() {
    let dir = changed(llama(), |tensors| {
        for (dtype, _, bytes) in tensors.values_mut() {
            let halves = bytes.chunks_exact(4).flat_map(|chunk| {
                let number = f32::from_le_bytes([chunk[0], chunk[1], chunk[2], chunk[3]]);
                bf16::from_f32(number).to_le_bytes()
            });
            *bytes = halves.collect();
            *dtype = Dtype::BF16;
        }
    });
    let brain = LoadOptions::new(DType::BF16, Device::flex());
    let decoder = Decoder::load(dir.path(), &brain).expect("loaded");
    let again = tempfile::tempdir().expect("a folder");
    decoder.save(again.path(), DType::BF16).expect("saved");
    assert!(super::loading::read(again.path()) == super::loading::read(dir.path()));
}

#[test]
fn vectors_and_matrices_of_the_wrong_rank_are_mis_shaped() {
    let dir = changed(llama(), |tensors| {
        tensors.insert("model.norm.weight".into(), vector(&[1.0; 16]));
        let (_, shape, _) = tensors.get_mut("model.norm.weight").expect("there");
        *shape = vec![4, 4];
        let (_, shape, _) = tensors.get_mut(UP).expect("there");
        *shape = vec![24 * 16];
    });
    let found = mismatch(dir.path());
    assert_eq!(found.mis_shaped.len(), 2, "{found}");
}
