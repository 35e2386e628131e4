//! Text to token ids and back.

use std::path::Path;

use tokenizers::{Encoding, Token};

use crate::chat::{ChatTemplate, ChatTemplates};
use crate::error::DataError;
use crate::special_tokens::SpecialTokens;

/// A `tokenizer.json` with its special tokens.
///
/// # Prompt and completion
///
/// They are encoded apart and then joined. Encoded together, the tokens at their border could
/// merge, and the prompt seen in training would not be the prompt that generation starts from.
/// Encoded apart, the ids of [`encode_prompt`](Self::encode_prompt) are exactly the beginning of
/// every training example with that prompt.
///
/// Special tokens that the tokenizer puts before a text (bos) are put before the prompt only, and
/// never twice; those that it puts after a text are not used, because the end of a sequence is
/// written by [`encode`](crate::encode).
#[derive(Debug, Clone)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    special: SpecialTokens,
    prefix: Vec<u32>,
    adds_space: bool,
    chat: Chat,
}

/// Of each token, where its bytes begin and end in the text.
pub type Offsets = Vec<(usize, usize)>;

/// Where chat templates come from.
#[derive(Debug, Clone)]
enum Chat {
    /// The tokenizer's own.
    Own(ChatTemplates),
    /// One that was set.
    Set(Box<ChatTemplate>),
}

impl Tokenizer {
    /// Reads `tokenizer.json` of a Hugging Face folder, and its special tokens
    /// ([`SpecialTokens::from_folder`]).
    ///
    /// # Errors
    ///
    /// [`DataError::NoTokenizer`] and [`DataError::BadTokenizer`] for the file itself, and those of
    /// [`SpecialTokens::from_folder`].
    pub fn from_folder(folder: impl AsRef<Path>) -> Result<Self, DataError> {
        let folder = folder.as_ref();
        let inner = read_file(folder)?;
        let special = SpecialTokens::from_folder(folder, &inner)?;
        let mut tokenizer = Self::new(inner, special)?;
        tokenizer.chat = Chat::Own(ChatTemplates::from_folder(folder)?);
        Ok(tokenizer)
    }

    /// As [`from_folder`](Self::from_folder), of an encoder, which need not name a token that ends a generation
    /// ([`SpecialTokens::from_encoder_folder`]).
    ///
    /// # Errors
    ///
    /// As [`from_folder`](Self::from_folder).
    pub fn from_encoder_folder(folder: impl AsRef<Path>) -> Result<Self, DataError> {
        let folder = folder.as_ref();
        let inner = read_file(folder)?;
        let special = SpecialTokens::from_encoder_folder(folder, &inner)?;
        Self::new(inner, special)
    }

    /// Wraps a tokenizer made in code. Truncation and padding set in it are switched off: a row is
    /// cut by [`encode`](crate::encode), which counts it.
    ///
    /// # Errors
    ///
    /// [`DataError::Tokenize`] if the post-processor fails.
    pub fn new(
        mut inner: tokenizers::Tokenizer,
        special: SpecialTokens,
    ) -> Result<Self, DataError> {
        inner
            .with_truncation(None)
            .map_err(|error| DataError::Tokenize(error.to_string()))?;
        inner.with_padding(None);
        let mut prefix = leading_special_tokens(&inner)?;
        match (special.add_bos, special.bos) {
            (Some(true), Some(bos)) if !prefix.contains(&bos) => prefix.insert(0, bos),
            (Some(false), Some(bos)) => prefix.retain(|&id| id != bos),
            _ => (),
        }
        let adds_space = adds_space(&inner);
        Ok(Self {
            inner,
            special,
            prefix,
            adds_space,
            chat: Chat::Own(ChatTemplates::default()),
        })
    }

    /// The ids that generation starts from and that begin a training example: bos if the tokenizer
    /// wants it, unless the text begins with it already (rendered chat templates do), then the
    /// text.
    ///
    /// # Errors
    ///
    /// [`DataError::Tokenize`], for example for a word that the vocabulary lacks when there is no
    /// unknown token.
    pub fn encode_prompt(&self, text: &str) -> Result<Vec<u32>, DataError> {
        let ids = self.plain(text)?;
        if ids.starts_with(&self.prefix) {
            return Ok(ids);
        }
        Ok([self.prefix.as_slice(), &ids].concat())
    }

    /// The ids of a text that follows another, without special tokens.
    ///
    /// SentencePiece-like tokenizers begin every text with a space of their own. A completion is no
    /// beginning, so there it is encoded after a line break, whose ids are taken off again: `4`
    /// after `2+2=` stays `4`.
    ///
    /// # Errors
    ///
    /// As [`encode_prompt`](Self::encode_prompt).
    pub fn encode_completion(&self, text: &str) -> Result<Vec<u32>, DataError> {
        if self.adds_space {
            let line_break = self.plain("\n")?;
            let both = self.plain(&format!("\n{text}"))?;
            if let Some(ids) = both.strip_prefix(line_break.as_slice()) {
                return Ok(ids.to_vec());
            }
        }
        self.plain(text)
    }

    /// The ids of a text as it is, without special tokens of the tokenizer's own, and the bytes of each.
    ///
    /// # Errors
    ///
    /// As [`encode_prompt`](Self::encode_prompt).
    pub fn encode_with_offsets(&self, text: &str) -> Result<(Vec<u32>, Offsets), DataError> {
        let encoding = self.inner.encode(text, false);
        encoding
            .map(|encoding| (encoding.get_ids().to_vec(), encoding.get_offsets().to_vec()))
            .map_err(|error| DataError::Tokenize(error.to_string()))
    }

    /// Writes conversations by this template instead of the tokenizer's own.
    pub fn with_chat_template(mut self, template: ChatTemplate) -> Self {
        self.chat = Chat::Set(Box::new(template));
        self
    }

    /// The template that writes conversations down, with tools or without.
    ///
    /// # Errors
    ///
    /// [`DataError::NoChatTemplate`], [`DataError::BadTemplate`].
    pub fn chat_template(&self, tools: bool) -> Result<ChatTemplate, DataError> {
        match &self.chat {
            Chat::Own(templates) => templates.get(None, tools),
            Chat::Set(template) => Ok((**template).clone()),
        }
    }

    /// The chat templates that came with the tokenizer; none if another was set.
    pub fn chat_templates(&self) -> Option<&ChatTemplates> {
        match &self.chat {
            Chat::Own(templates) => Some(templates),
            Chat::Set(_) => None,
        }
    }

    /// The text of `ids`, without special tokens.
    ///
    /// Some tokenizers drop a space at the start, so compare with the decoded reference rather than
    /// with its source text.
    ///
    /// # Errors
    ///
    /// [`DataError::Tokenize`] if the decoder fails.
    pub fn decode(&self, ids: &[u32]) -> Result<String, DataError> {
        self.inner
            .decode(ids, true)
            .map_err(|error| DataError::Tokenize(error.to_string()))
    }

    /// The special tokens.
    pub fn special(&self) -> &SpecialTokens {
        &self.special
    }

    /// The token that ends a sequence.
    pub fn eos(&self) -> u32 {
        self.special.eos
    }

    /// The token that begins a sequence, if there is one.
    pub fn bos(&self) -> Option<u32> {
        self.special.bos
    }

    /// The token that fills a batch.
    pub fn pad(&self) -> u32 {
        self.special.pad
    }

    /// The tokens that end generation.
    pub fn stop_ids(&self) -> &[u32] {
        &self.special.stop
    }

    /// The special tokens put before a prompt.
    pub fn prefix(&self) -> &[u32] {
        &self.prefix
    }

    /// Tokens in the vocabulary, added ones included.
    pub fn vocab_size(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// The rows that an embedding needs for all tokens: one more than the largest id, which is more than
    /// [`Self::vocab_size`] where ids are left out.
    pub fn embedding_rows(&self) -> usize {
        embedding_rows(&self.inner)
    }

    /// The token of an id.
    pub fn id_to_token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// All that the ids of a text depend on, the day included where a chat template tells it.
    pub(crate) fn fingerprint(&self) -> String {
        let chat = match &self.chat {
            Chat::Own(templates) => format!("{templates:?}"),
            Chat::Set(template) => template.source().to_string(),
        };
        let day = match chat.contains("strftime_now") {
            true => chrono::Local::now().date_naive().to_string(),
            false => String::new(),
        };
        let inner = self.inner.to_string(false).unwrap_or_default();
        format!(
            "{inner}\n{:?} {:?}\n{chat}\n{day}",
            self.special, self.prefix
        )
    }

    /// The tokenizer itself.
    pub fn inner(&self) -> &tokenizers::Tokenizer {
        &self.inner
    }

    fn plain(&self, text: &str) -> Result<Vec<u32>, DataError> {
        let encoding = self.inner.encode_fast(text, false);
        encoding
            .map(|encoding| encoding.get_ids().to_vec())
            .map_err(|error| DataError::Tokenize(error.to_string()))
    }
}

/// `tokenizer.json` of a folder, as it is.
pub(crate) fn read_file(folder: &Path) -> Result<tokenizers::Tokenizer, DataError> {
    let path = folder.join("tokenizer.json");
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(DataError::NoTokenizer {
                folder: folder.to_path_buf(),
                hint: hint(folder),
            });
        }
        Err(source) => return Err(DataError::Read { path, source }),
    };
    tokenizers::Tokenizer::from_bytes(bytes).map_err(|error| DataError::BadTokenizer {
        path,
        message: error.to_string(),
    })
}

/// The rows that an embedding needs for all tokens: one more than the largest id.
pub(crate) fn embedding_rows(inner: &tokenizers::Tokenizer) -> usize {
    let vocabulary = inner.get_vocab(true);
    vocabulary.values().max().map_or(0, |id| *id as usize + 1)
}

/// What a folder without `tokenizer.json` has instead.
fn hint(folder: &Path) -> &'static str {
    if !folder.is_dir() {
        ": it is not a folder"
    } else if folder.join("tokenizer.model").exists() || folder.join("vocab.json").exists() {
        ", only the files of a slow tokenizer: load it with transformers' AutoTokenizer and call \
         save_pretrained"
    } else {
        ""
    }
}

/// The ids that the post-processor puts before a text, found by giving it a token that no
/// vocabulary has.
fn leading_special_tokens(inner: &tokenizers::Tokenizer) -> Result<Vec<u32>, DataError> {
    const MARKER: u32 = u32::MAX;
    let text = Encoding::from_tokens(vec![Token::new(MARKER, "x".to_string(), (0, 1))], 0);
    let processed = inner
        .post_process(text, None, true)
        .map_err(|error| DataError::Tokenize(error.to_string()))?;
    Ok(processed
        .get_ids()
        .iter()
        .copied()
        .take_while(|&id| id != MARKER)
        .collect())
}

/// Whether a text without a space at its start gets one: `▁` in SentencePiece's writing, `Ġ` in
/// GPT-2's.
fn adds_space(inner: &tokenizers::Tokenizer) -> bool {
    let first = inner
        .encode("a", false)
        .ok()
        .and_then(|encoding| encoding.get_tokens().first().cloned());
    first.is_some_and(|token| token.starts_with(['▁', 'Ġ']))
}

#[cfg(test)]
mod tests;
