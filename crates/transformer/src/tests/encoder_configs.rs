//! What a `config.json` of an encoder may and may not say.

use crate::encoder::Task;
use crate::{BertConfig, DebertaConfig, DistilBertConfig, EncoderConfig, ModernBertConfig};
use burn::tensor::DType;

fn read(text: &str) -> EncoderConfig {
    EncoderConfig::from_json(text).expect("valid")
}

const MINI_LM: &str = r#"{"architectures": ["BertModel"], "model_type": "bert", "hidden_act": "gelu",
    "hidden_size": 384, "intermediate_size": 1536, "layer_norm_eps": 1e-12, "max_position_embeddings": 512,
    "num_attention_heads": 12, "num_hidden_layers": 6, "pad_token_id": 0, "type_vocab_size": 2,
    "position_embedding_type": "absolute", "hidden_dropout_prob": 0.1, "vocab_size": 30522}"#;

#[test]
fn reads_the_published_form() {
    let config = read(MINI_LM);
    assert_eq!((config.hidden_size(), config.num_labels()), (384, 2));
    let again = config.to_json();
    assert!(again.contains("\"hidden_dropout_prob\": 0.1"), "{again}");
    assert!(again.contains("BertModel"), "{again}");
    let again = read(&again);
    assert_eq!((again.hidden_size(), again.num_labels()), (384, 2));
    let task = Some(Task::SequenceClassification);
    let text = config.to_json_for(task, DType::F16);
    assert!(text.contains("BertForSequenceClassification"), "{text}");
    assert!(text.contains("\"torch_dtype\": \"float16\""), "{text}");
}

#[test]
fn the_names_of_the_labels_count_them_and_are_kept() {
    let names = r#""id2label": {"0": "no", "1": "yes", "2": "unsure"}, "model_type""#;
    let text = MINI_LM.replace("\"model_type\"", names);
    let config = read(&text);
    assert_eq!(config.num_labels(), 3);
    assert!(config.to_json().contains("unsure"));
    let mut other = config;
    other.set_num_labels(2);
    let text = other.to_json();
    assert!(
        text.contains("LABEL_1") && !text.contains("unsure"),
        "{text}"
    );

    let text = MINI_LM.replace("\"model_type\"", "\"num_labels\": 5, \"model_type\"");
    let config = read(&text);
    assert_eq!(config.num_labels(), 5);
    let again = read(&config.to_json());
    assert_eq!(again.num_labels(), 5);
}

#[test]
fn all_that_is_not_built_is_refused_at_once() {
    let text = r#"{"model_type": "bert", "vocab_size": 10, "hidden_size": 8, "num_attention_heads": 2,
        "intermediate_size": 16, "hidden_act": "sinus", "is_decoder": true, "num_labels": 2,
        "position_embedding_type": "relative_key", "id2label": {"0": "a", "1": "b", "3": "c"}}"#;
    let text = EncoderConfig::from_json(text)
        .expect_err("refused")
        .to_string();
    for part in [
        "`hidden_act` is `sinus`; built are silu, ",
        "is_decoder",
        "relative_key",
        "`num_hidden_layers` is missing",
        "`id2label` has 3 names, but none for 2",
        "`num_labels` is 2, but `id2label` has 3 names",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
}

#[test]
fn sizes_that_do_not_fit_are_refused_at_once() {
    let config = BertConfig {
        num_attention_heads: 5,
        num_labels: 0,
        pad_token_id: 30_522,
        ..BertConfig::default()
    };
    let config = EncoderConfig::from(config);
    let text = config.check().expect_err("refused").to_string();
    for part in [
        "`hidden_size` 768 is not a multiple of `num_attention_heads` 5",
        "`num_labels` is 0",
        "`pad_token_id` 30522 is not below",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
}

#[test]
fn an_unknown_model_names_the_known_ones_and_the_nearest() {
    let text = EncoderConfig::from_json(r#"{"model_type": "deberta-v3"}"#)
        .expect_err("refused")
        .to_string();
    assert!(text.contains("(nearest: `deberta-v2`)"), "{text}");
    assert!(text.contains("bert, roberta, xlm-roberta, "), "{text}");
}

#[test]
fn a_family_names_its_own_fields() {
    let config = EncoderConfig::from(DistilBertConfig {
        n_heads: 5,
        hidden_dim: 0,
        ..DistilBertConfig::default()
    });
    let text = config.check().expect_err("refused").to_string();
    for part in [
        "`dim` 768 is not a multiple of `n_heads` 5",
        "`hidden_dim` is 0",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
}

#[test]
fn roberta_starts_behind_its_padding() {
    let text = MINI_LM.replace("\"bert\"", "\"roberta\"");
    let text = text.replace("\"pad_token_id\": 0", "\"pad_token_id\": 1");
    assert_eq!(read(&text).max_positions(), 510);
    // Where the file does not say, it is not BERT's.
    let text = text.replace("\"pad_token_id\": 1,", "");
    assert_eq!(read(&text).max_positions(), 510);
}

#[test]
fn modernbert_is_read_in_both_spellings() {
    let old = r#"{"model_type": "modernbert", "vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 4,
        "num_attention_heads": 2, "intermediate_size": 24, "global_attn_every_n_layers": 2, "local_attention": 10,
        "global_rope_theta": 7e4, "local_rope_theta": 5e3, "pad_token_id": 1}"#;
    let new = r#"{"model_type": "modernbert", "vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 4,
        "num_attention_heads": 2, "intermediate_size": 24, "local_attention": 10, "pad_token_id": 1,
        "layer_types": ["full_attention", "sliding_attention", "full_attention", "sliding_attention"],
        "rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 7e4},
            "sliding_attention": {"rope_type": "default", "rope_theta": 5e3}}}"#;
    assert_eq!(read(old).spec(), read(new).spec());
    let again = read(&read(new).to_json());
    assert_eq!(again.spec(), read(old).spec());
    assert!(
        again
            .to_json()
            .contains("\"global_attn_every_n_layers\": 2")
    );

    let text = new.replace(
        "\"sliding_attention\", \"full",
        "\"chunked_attention\", \"full",
    );
    let text = text.replace("\"default\", \"rope_theta\": 5e3", "\"yarn\"");
    let text = EncoderConfig::from_json(&text)
        .expect_err("refused")
        .to_string();
    assert!(
        text.contains("rope type `yarn` of `sliding_attention`"),
        "{text}"
    );
}

#[test]
fn what_deberta_cannot_be_is_refused_at_once() {
    let text = r#"{"model_type": "deberta-v2", "vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 2,
        "num_attention_heads": 2, "intermediate_size": 24, "pos_att_type": "c2p|p2p", "attention_head_size": 4,
        "norm_rel_ebd": "batch_norm", "pooler_hidden_size": 8, "talking_head": true}"#;
    let text = EncoderConfig::from_json(text)
        .expect_err("refused")
        .to_string();
    for part in [
        "`pos_att_type` has `p2p`",
        "`attention_head_size` 4 times 2 heads",
        "`norm_rel_ebd` is `batch_norm`",
        "`pooler_hidden_size` 8",
        "`talking_head`",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
}

#[test]
fn every_configuration_survives_its_file() {
    let configs: [EncoderConfig; 4] = [
        BertConfig::default().into(),
        DistilBertConfig::default().into(),
        ModernBertConfig::default().into(),
        DebertaConfig::default().into(),
    ];
    for config in configs {
        let again = read(&config.to_json());
        assert_eq!(again.spec(), config.spec(), "{}", config.model_type());
    }
}
