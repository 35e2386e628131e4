//! The shapes of published encoders and encoder-decoders: their `config.json`, but for token ids and the like, and their number
//! of parameters.

use serde_json::{Value, json};

use super::*;
use crate::encoder::load::FromCheckpoint;
use crate::weights::Key;
use crate::{Encoder, EncoderConfig, MaskedLm, T5, T5Config};

/// An encoder; what the numbers count is the encoder alone, and with the head of a masked language model.
fn encoders() -> Vec<(&'static str, [usize; 2], Value)> {
    vec![
        (
            "bert-base-uncased",
            [108_891_648, 109_514_298],
            json!({"model_type": "bert", "attention_probs_dropout_prob": 0.1, "gradient_checkpointing": false,
                "hidden_act": "gelu", "hidden_dropout_prob": 0.1, "hidden_size": 768, "initializer_range": 0.02,
                "intermediate_size": 3072, "layer_norm_eps": 1e-12, "max_position_embeddings": 512,
                "num_attention_heads": 12, "num_hidden_layers": 12, "pad_token_id": 0,
                "position_embedding_type": "absolute", "type_vocab_size": 2, "use_cache": true,
                "vocab_size": 30522}),
        ),
        (
            "roberta-base",
            [124_055_040, 124_697_433],
            json!({"model_type": "roberta", "attention_probs_dropout_prob": 0.1, "bos_token_id": 0,
                "eos_token_id": 2, "hidden_act": "gelu", "hidden_dropout_prob": 0.1, "hidden_size": 768,
                "initializer_range": 0.02, "intermediate_size": 3072, "layer_norm_eps": 1e-05,
                "max_position_embeddings": 514, "num_attention_heads": 12, "num_hidden_layers": 12,
                "pad_token_id": 1, "type_vocab_size": 1, "vocab_size": 50265}),
        ),
        (
            "xlm-roberta-base",
            [277_453_056, 278_295_186],
            json!({"model_type": "xlm-roberta", "attention_probs_dropout_prob": 0.1, "bos_token_id": 0,
                "eos_token_id": 2, "hidden_act": "gelu", "hidden_dropout_prob": 0.1, "hidden_size": 768,
                "initializer_range": 0.02, "intermediate_size": 3072, "layer_norm_eps": 1e-05,
                "max_position_embeddings": 514, "num_attention_heads": 12, "num_hidden_layers": 12,
                "output_past": true, "pad_token_id": 1, "type_vocab_size": 1, "vocab_size": 250002}),
        ),
        (
            "distilbert-base-uncased",
            [66_362_880, 66_985_530],
            json!({"model_type": "distilbert", "activation": "gelu", "attention_dropout": 0.1, "dim": 768,
                "dropout": 0.1, "hidden_dim": 3072, "initializer_range": 0.02, "max_position_embeddings": 512,
                "n_heads": 12, "n_layers": 6, "pad_token_id": 0, "qa_dropout": 0.1, "seq_classif_dropout": 0.2,
                "sinusoidal_pos_embds": false, "tie_weights_": true, "vocab_size": 30522}),
        ),
        (
            "ModernBERT-base",
            [149_014_272, 149_655_232],
            json!({"model_type": "modernbert", "attention_bias": false, "attention_dropout": 0.0,
                "bos_token_id": 50281, "classifier_activation": "gelu", "classifier_bias": false,
                "classifier_dropout": 0.0, "classifier_pooling": "mean", "cls_token_id": 50281,
                "decoder_bias": true, "deterministic_flash_attn": false, "embedding_dropout": 0.0,
                "eos_token_id": 50282, "global_attn_every_n_layers": 3, "global_rope_theta": 160000.0,
                "gradient_checkpointing": false, "hidden_activation": "gelu", "hidden_size": 768,
                "initializer_cutoff_factor": 2.0, "initializer_range": 0.02, "intermediate_size": 1152,
                "layer_norm_eps": 1e-05, "local_attention": 128, "local_rope_theta": 10000.0,
                "max_position_embeddings": 8192, "mlp_bias": false, "mlp_dropout": 0.0, "norm_bias": false,
                "norm_eps": 1e-05, "num_attention_heads": 12, "num_hidden_layers": 22, "pad_token_id": 50283,
                "position_embedding_type": "absolute", "sep_token_id": 50282, "tie_word_embeddings": true,
                "vocab_size": 50368}),
        ),
        (
            "deberta-base",
            [138_601_728, 139_244_121],
            json!({"model_type": "deberta", "attention_probs_dropout_prob": 0.1, "hidden_act": "gelu",
                "hidden_dropout_prob": 0.1, "hidden_size": 768, "initializer_range": 0.02,
                "intermediate_size": 3072, "layer_norm_eps": 1e-07, "max_position_embeddings": 512,
                "max_relative_positions": -1, "num_attention_heads": 12, "num_hidden_layers": 12,
                "padding_idx": 0, "pooler_dropout": 0, "pooler_hidden_act": "gelu", "pos_att_type": "c2p|p2c",
                "position_biased_input": false, "relative_attention": true, "type_vocab_size": 0,
                "vocab_size": 50265}),
        ),
        (
            "deberta-v3-base",
            [183_831_552, 184_551_780],
            json!({"model_type": "deberta-v2", "attention_probs_dropout_prob": 0.1, "hidden_act": "gelu",
                "hidden_dropout_prob": 0.1, "hidden_size": 768, "initializer_range": 0.02,
                "intermediate_size": 3072, "layer_norm_eps": 1e-07, "max_position_embeddings": 512,
                "max_relative_positions": -1, "norm_rel_ebd": "layer_norm", "num_attention_heads": 12,
                "num_hidden_layers": 12, "pos_att_type": "p2c|c2p", "position_biased_input": false,
                "position_buckets": 256, "relative_attention": true, "share_att_key": true,
                "type_vocab_size": 0, "vocab_size": 128100}),
        ),
    ]
}

fn encoder_decoders() -> Vec<(&'static str, usize, Value)> {
    vec![
        (
            "t5-small",
            60_506_624,
            json!({"model_type": "t5", "architectures": ["T5ForConditionalGeneration"], "d_ff": 2048, "d_kv": 64,
                "d_model": 512, "decoder_start_token_id": 0, "dropout_rate": 0.1, "eos_token_id": 1,
                "initializer_factor": 1.0, "is_encoder_decoder": true, "layer_norm_epsilon": 1e-06,
                "n_positions": 512, "num_heads": 8, "num_layers": 6, "output_past": true, "pad_token_id": 0,
                "relative_attention_num_buckets": 32, "vocab_size": 32128}),
        ),
        (
            "t5-base",
            222_903_552,
            json!({"model_type": "t5", "d_ff": 3072, "d_kv": 64, "d_model": 768, "decoder_start_token_id": 0,
                "dropout_rate": 0.1, "eos_token_id": 1, "initializer_factor": 1.0, "is_encoder_decoder": true,
                "layer_norm_epsilon": 1e-06, "n_positions": 512, "num_heads": 12, "num_layers": 12,
                "output_past": true, "pad_token_id": 0, "relative_attention_num_buckets": 32,
                "vocab_size": 32128}),
        ),
        (
            "flan-t5-small",
            76_961_152,
            json!({"model_type": "t5", "d_ff": 1024, "d_kv": 64, "d_model": 512, "decoder_start_token_id": 0,
                "dropout_rate": 0.1, "eos_token_id": 1, "feed_forward_proj": "gated-gelu",
                "initializer_factor": 1.0, "is_encoder_decoder": true, "layer_norm_epsilon": 1e-06,
                "n_positions": 512, "num_decoder_layers": 8, "num_heads": 6, "num_layers": 8,
                "output_past": true, "pad_token_id": 0, "relative_attention_max_distance": 128,
                "relative_attention_num_buckets": 32, "tie_word_embeddings": false, "vocab_size": 32128}),
        ),
        (
            "flan-t5-base",
            247_577_856,
            json!({"model_type": "t5", "d_ff": 2048, "d_kv": 64, "d_model": 768, "decoder_start_token_id": 0,
                "dropout_rate": 0.1, "eos_token_id": 1, "feed_forward_proj": "gated-gelu",
                "initializer_factor": 1.0, "is_encoder_decoder": true, "layer_norm_epsilon": 1e-06,
                "n_positions": 512, "num_decoder_layers": 12, "num_heads": 12, "num_layers": 12,
                "output_past": true, "pad_token_id": 0, "relative_attention_max_distance": 128,
                "relative_attention_num_buckets": 32, "tie_word_embeddings": false, "vocab_size": 32128}),
        ),
        (
            "mt5-small",
            300_176_768,
            json!({"model_type": "mt5", "architectures": ["MT5ForConditionalGeneration"], "d_ff": 1024,
                "d_kv": 64, "d_model": 512, "decoder_start_token_id": 0, "dropout_rate": 0.1, "eos_token_id": 1,
                "feed_forward_proj": "gated-gelu", "initializer_factor": 1.0, "is_encoder_decoder": true,
                "layer_norm_epsilon": 1e-06, "num_decoder_layers": 8, "num_heads": 6, "num_layers": 8,
                "pad_token_id": 0, "relative_attention_num_buckets": 32, "tie_word_embeddings": false,
                "tokenizer_class": "T5Tokenizer", "vocab_size": 250112}),
        ),
    ]
}

fn count(keys: &[Key]) -> usize {
    let sizes = keys.iter().map(|key| key.shape.iter().product::<usize>());
    sizes.sum()
}

#[test]
fn published_encoders_have_their_number_of_parameters() {
    let device = Device::flex();
    for (name, [bare, masked], config) in encoders() {
        let config = EncoderConfig::from_json(&config.to_string());
        let config = config.unwrap_or_else(|error| panic!("{name}: {error}"));
        let keys = <Encoder as FromCheckpoint>::keys(&config, &device);
        assert_eq!(count(&keys), bare, "{name}");
        let keys = <MaskedLm as FromCheckpoint>::keys(&config, &device);
        assert_eq!(count(&keys), masked, "{name} with its head");
        let again = EncoderConfig::from_json(&config.to_json());
        let again = again.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(again.to_json(), config.to_json(), "{name}");
    }
}

#[test]
fn published_encoder_decoders_have_their_number_of_parameters() {
    for (name, expected, config) in encoder_decoders() {
        let config = T5Config::from_json(&config.to_string());
        let config = config.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(
            count(&T5::keys(&config, &Device::flex())),
            expected,
            "{name}"
        );
        let again = T5Config::from_json(&config.to_json());
        let again = again.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(again.to_json(), config.to_json(), "{name}");
    }
}
