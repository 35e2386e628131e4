//! The tokenizer: byte-level BPE, so that any text has tokens, with merges learned from the invented text.

use std::path::Path;

use serde_json::json;
use tokenizers::models::bpe::{BPE, BpeTrainerBuilder};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{
    AddedToken, NormalizerWrapper, PostProcessorWrapper, Tokenizer, TokenizerBuilder,
};

pub const PAD: &str = "<pad>";
pub const EOS: &str = "<eos>";

/// Learns `vocab_size` tokens from `text`.
pub fn train<'a>(
    text: impl Iterator<Item = &'a str> + Send,
    vocab_size: usize,
) -> tokenizers::Result<Tokenizer> {
    // The text never starts with a space, and neither does what a user types.
    let byte_level = ByteLevel::default().add_prefix_space(false);
    let mut trainer = BpeTrainerBuilder::new()
        .show_progress(false)
        .vocab_size(vocab_size)
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .special_tokens(vec![
            AddedToken::from(PAD, true),
            AddedToken::from(EOS, true),
        ])
        .build();
    let mut tokenizer = TokenizerBuilder::<
        BPE,
        NormalizerWrapper,
        ByteLevel,
        PostProcessorWrapper,
        ByteLevel,
    >::new()
    .with_model(BPE::default())
    .with_pre_tokenizer(Some(byte_level))
    .with_decoder(Some(byte_level))
    .build()?;
    tokenizer.train(&mut trainer, text)?;
    Ok(tokenizer.into())
}

/// Writes `tokenizer.json` and the `tokenizer_config.json` that names the special tokens.
pub fn save(tokenizer: &Tokenizer, folder: &Path) -> tokenizers::Result<()> {
    tokenizer.save(folder.join("tokenizer.json"), true)?;
    let config = json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": EOS,
        "pad_token": PAD,
        "add_prefix_space": false,
        "clean_up_tokenization_spaces": false,
        "model_max_length": 256,
    });
    std::fs::write(
        folder.join("tokenizer_config.json"),
        format!("{config:#}\n"),
    )?;
    Ok(())
}
