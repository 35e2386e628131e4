use super::*;
use crate::{LoadError, LoadOptions, Mismatch, SaveError};
use burn::tensor::DType;
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use std::collections::BTreeMap;
use std::path::Path;

pub(super) type Tensors = BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>;

pub(super) fn options() -> LoadOptions {
    LoadOptions::new(DType::F32, Device::flex())
}

pub(super) fn load(dir: &Path) -> Result<Decoder, LoadError> {
    Decoder::load(dir, &options())
}

pub(super) fn read(dir: &Path) -> Tensors {
    let bytes = std::fs::read(dir.join("model.safetensors")).expect("a file");
    let file = safetensors::SafeTensors::deserialize(&bytes).expect("safetensors");
    file.iter()
        .map(|(name, view)| {
            let entry = (view.dtype(), view.shape().to_vec(), view.data().to_vec());
            (name.to_owned(), entry)
        })
        .collect()
}

pub(super) fn write(path: &Path, tensors: &Tensors) {
    let views = tensors.iter().map(|(name, (dtype, shape, bytes))| {
        let view = TensorView::new(*dtype, shape.clone(), bytes).expect("a view");
        (name.as_str(), view)
    });
    safetensors::serialize_to_file(views, None, path).expect("written");
}

/// A saved decoder whose tensors were changed.
pub(super) fn changed(
    config: impl Into<DecoderConfig>,
    change: impl FnOnce(&mut Tensors),
) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a folder");
    let decoder = Decoder::init(config, &Device::flex(), 3).expect("valid");
    decoder.save(dir.path(), DType::F32).expect("saved");
    let mut tensors = read(dir.path());
    change(&mut tensors);
    write(&dir.path().join("model.safetensors"), &tensors);
    dir
}

pub(super) fn mismatch(dir: &Path) -> Mismatch {
    match load(dir) {
        Err(LoadError::Mismatch { mismatch, .. }) => *mismatch,
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("loaded"),
    }
}

pub(super) fn vector(values: &[f32]) -> (Dtype, Vec<usize>, Vec<u8>) {
    let bytes = values
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect();
    (Dtype::F32, vec![values.len()], bytes)
}

#[test]
fn saved_and_loaded_is_the_same() {
    for (name, decoder) in decoders() {
        let dir = tempfile::tempdir().expect("a folder");
        decoder.save(dir.path(), DType::F32).expect("saved");
        let loaded = load(dir.path()).expect(name);
        let (a, b) = (
            loaded.logits(ids(&[&[1, 2]])),
            decoder.logits(ids(&[&[1, 2]])),
        );
        assert_close(name, a, b, 0.0);
        let mut config = decoder.config();
        config.set_dtype("float32");
        assert_eq!(loaded.config().to_json(), config.to_json(), "{name}");
        let files = std::fs::read_dir(dir.path()).expect("a folder").count();
        assert_eq!(files, 2, "no partial file is left");
    }
}

#[test]
fn linear_layers_are_stored_as_pytorch_stores_them() {
    let dir = changed(llama(), |_| {});
    let tensors = read(dir.path());
    assert_eq!(tensors["model.layers.0.mlp.up_proj.weight"].1, [24, 16]);
    assert_eq!(tensors["lm_head.weight"].1, [31, 16]);
    let dir = changed(gpt2(), |_| {});
    let tensors = read(dir.path());
    assert_eq!(tensors["transformer.h.0.mlp.c_fc.weight"].1, [16, 24]);
    assert!(!tensors.contains_key("lm_head.weight"));
}

#[test]
fn every_difference_is_in_one_error() {
    let dir = changed(llama(), |tensors| {
        let norm = tensors.remove("model.norm.weight").expect("there");
        tensors.insert("model.norms.weight".into(), norm);
        tensors.remove("model.layers.1.self_attn.v_proj.weight");
        tensors.insert(
            "model.layers.0.input_layernorm.weight".into(),
            vector(&[1.0; 5]),
        );
        let ints = (Dtype::I32, vec![16], vec![0; 64]);
        tensors.insert("model.layers.1.input_layernorm.weight".into(), ints);
    });
    let error = load(dir.path()).expect_err("refused").to_string();
    let found = mismatch(dir.path());
    let missing: Vec<&str> = found.missing.iter().map(|m| m.name.as_str()).collect();
    assert_eq!(
        missing,
        [
            "model.layers.1.self_attn.v_proj.weight",
            "model.norm.weight"
        ]
    );
    assert_eq!(
        found.missing[1].nearest.as_deref(),
        Some("model.norms.weight")
    );
    assert_eq!(found.unexpected, ["model.norms.weight"]);
    assert_eq!(found.mis_shaped.len(), 1);
    assert_eq!(found.mis_shaped[0].expected, [16]);
    assert_eq!(found.not_float.len(), 1);
    for part in [
        "v_proj",
        "model.norms.weight",
        "[5], expected [16]",
        "is I32",
    ] {
        assert!(error.contains(part), "{part} in {error}");
    }
}

#[test]
fn a_transposed_weight_is_refused() {
    let dir = changed(llama(), |tensors| {
        let (_, shape, _) = tensors
            .get_mut("model.layers.0.mlp.up_proj.weight")
            .expect("there");
        shape.reverse();
    });
    assert_eq!(mismatch(dir.path()).mis_shaped[0].found, [16, 24]);
}

#[test]
fn the_optional_prefix_may_be_left_out() {
    for (config, prefix) in [
        (DecoderConfig::from(llama()), "model."),
        (gpt2().into(), "transformer."),
    ] {
        let whole = changed(config.clone(), |_| {});
        let short = changed(config, |tensors| {
            *tensors = std::mem::take(tensors)
                .into_iter()
                .map(|(name, entry)| (name.strip_prefix(prefix).unwrap_or(&name).to_owned(), entry))
                .collect();
        });
        let (a, b) = (
            load(whole.path()).expect("loaded"),
            load(short.path()).expect(prefix),
        );
        assert_close(
            prefix,
            a.logits(ids(&[&[1, 2]])),
            b.logits(ids(&[&[1, 2]])),
            0.0,
        );
    }
}

#[test]
fn remains_of_older_libraries_are_passed_over() {
    let dir = changed(gpt2(), |tensors| {
        tensors.insert("transformer.h.0.attn.bias".into(), vector(&[1.0]));
        tensors.insert("transformer.h.0.attn.masked_bias".into(), vector(&[1.0]));
        let head = tensors["transformer.wte.weight"].clone();
        tensors.insert("lm_head.weight".into(), head);
    });
    load(dir.path()).expect("loaded");
    let dir = changed(llama(), |tensors| {
        let name = "model.layers.0.self_attn.rotary_emb.inv_freq";
        tensors.insert(name.into(), vector(&[1.0]));
    });
    load(dir.path()).expect("loaded");
}

#[test]
fn the_other_name_of_a_head_is_known() {
    let (_, neox) = configs().remove(10);
    assert_eq!(neox.model_type(), "gpt_neox");
    let whole = changed(neox.clone(), |_| {});
    let renamed = changed(neox, |tensors| {
        let head = tensors.remove("embed_out.weight").expect("there");
        tensors.insert("lm_head.weight".into(), head);
        let mask = "gpt_neox.layers.0.attention.masked_bias";
        tensors.insert(mask.into(), vector(&[1.0]));
    });
    let logits = |dir: &Path| load(dir).expect("loaded").logits(ids(&[&[1, 2]]));
    assert_close("neox", logits(renamed.path()), logits(whole.path()), 0.0);
}

#[test]
fn experts_that_are_not_there_are_named() {
    let (_, mixtral) = configs().remove(12);
    assert_eq!(mixtral.model_type(), "mixtral");
    let dir = changed(mixtral, |tensors| {
        tensors.retain(|name, _| !name.contains("layers.1.block_sparse_moe.experts.3"));
    });
    let missing = mismatch(dir.path()).missing;
    assert_eq!(missing.len(), 3);
    assert!(missing[0].name.contains("experts.3.w"));
}

#[test]
fn a_head_of_another_shape_is_not_taken_for_a_tied_one() {
    let dir = changed(gpt2(), |tensors| {
        tensors.insert("lm_head.weight".into(), vector(&[1.0]));
    });
    assert_eq!(mismatch(dir.path()).unexpected, ["lm_head.weight"]);
}

/// Moves the tensors to two shards and an index.
pub(super) fn shard(dir: &Path) {
    let tensors = read(dir);
    std::fs::remove_file(dir.join("model.safetensors")).expect("removed");
    let mut index = serde_json::json!({"weight_map": {}});
    let mut shards = [Tensors::new(), Tensors::new()];
    for (at, (name, entry)) in tensors.into_iter().enumerate() {
        index["weight_map"][&name] = format!("part-{}.safetensors", at % 2).into();
        shards[at % 2].insert(name, entry);
    }
    for (at, shard) in shards.iter().enumerate() {
        write(&dir.join(format!("part-{at}.safetensors")), shard);
    }
    let path = dir.join("model.safetensors.index.json");
    std::fs::write(path, index.to_string()).expect("written");
}

#[test]
fn shards_are_found_by_their_index() {
    let whole = changed(llama(), |_| {});
    let sharded = changed(llama(), |_| {});
    shard(sharded.path());
    let (a, b) = (
        load(whole.path()).expect("whole"),
        load(sharded.path()).expect("sharded"),
    );
    assert_close(
        "shards",
        a.logits(ids(&[&[1, 2]])),
        b.logits(ids(&[&[1, 2]])),
        0.0,
    );
}

#[test]
fn an_absent_shard_is_named() {
    let dir = changed(llama(), |_| {});
    shard(dir.path());
    std::fs::remove_file(dir.path().join("part-1.safetensors")).expect("removed");
    let error = load(dir.path()).expect_err("refused");
    assert!(matches!(&error, LoadError::Index { problems, .. } if problems.len() == 1));
    assert!(
        error
            .to_string()
            .contains("`part-1.safetensors` is not in the folder"),
        "{error}"
    );
}

#[test]
fn an_index_that_leads_nowhere_is_refused() {
    let dir = changed(llama(), |_| {});
    shard(dir.path());
    let path = dir.path().join("model.safetensors.index.json");
    let text = std::fs::read_to_string(&path).expect("read");
    let text = text.replace("\"lm_head.weight\"", "\"lm_haed.weight\"");
    std::fs::write(&path, text).expect("written");
    let error = load(dir.path()).expect_err("refused").to_string();
    assert!(error.contains("does not hold `lm_haed.weight`"), "{error}");
    std::fs::write(&path, r#"{"weight_map": {"a": "../a.safetensors"}}"#).expect("written");
    let error = load(dir.path()).expect_err("refused").to_string();
    assert!(error.contains("not a file name"), "{error}");
}

#[test]
fn a_truncated_file_is_damaged() {
    let dir = changed(llama(), |_| {});
    let path = dir.path().join("model.safetensors");
    let bytes = std::fs::read(&path).expect("read");
    for cut in [3, 100, bytes.len() - 1] {
        std::fs::write(&path, &bytes[..cut]).expect("written");
        let error = load(dir.path()).expect_err("refused");
        assert!(matches!(error, LoadError::Damaged { .. }), "{error}");
    }
}

#[test]
fn a_folder_without_weights_says_what_it_holds() {
    let dir = changed(llama(), |_| {});
    let (from, to) = ("model.safetensors", "consolidated.pth");
    std::fs::rename(dir.path().join(from), dir.path().join(to)).expect("renamed");
    let error = load(dir.path()).expect_err("refused");
    assert!(matches!(error, LoadError::NoWeights { .. }));
    assert!(error.to_string().contains("consolidated.pth"), "{error}");
    let nowhere = load(&dir.path().join("nowhere")).expect_err("refused");
    assert!(nowhere.to_string().contains("config.json"), "{nowhere}");
}

#[test]
fn only_float_dtypes_are_taken() {
    let dir = changed(llama(), |_| {});
    let options = LoadOptions::new(DType::I32, Device::flex());
    let error = Decoder::load(dir.path(), &options).expect_err("refused");
    assert!(matches!(error, LoadError::DType { .. }), "{error}");
    let decoder = load(dir.path()).expect("loaded");
    let error = decoder.save(dir.path(), DType::I32).expect_err("refused");
    assert!(matches!(error, SaveError::DType(DType::I32)));
}

#[test]
fn attached_adapters_are_not_lost_in_saving() {
    let device = Device::flex();
    let decoder = Decoder::init(llama(), &device, 3).expect("valid");
    let config = burn_lora_adapter::LoraConfig::new(2, 4.0);
    let decoder = burn_lora_adapter::attach(decoder, "default", &config).expect("attached");
    let dir = tempfile::tempdir().expect("a folder");
    let error = decoder.save(dir.path(), DType::F32).expect_err("refused");
    let SaveError::Adapted { paths } = error else {
        panic!("{error}")
    };
    assert!(
        paths.iter().any(|path| path.contains("q_proj")),
        "{paths:?}"
    );
    assert!(!dir.path().join("model.safetensors").exists());
}
