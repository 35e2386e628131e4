//! Chat: of conversations a decoder learns the assistant's turns, written down by a chat template.
//!
//! `burn-lora train` does the same with rows of `messages`, tools included (`burn-lora recipes print chat`), and
//! `burn-lora generate --chat` talks with what was learned.
//!
//! ```text
//! cargo run --release --example chat
//! ```

#![allow(clippy::print_stdout)]

use std::error::Error;
use std::path::Path;

use burn_lora::data::{Chat, ChatTemplate, Message, Row, Rows};
use burn_lora::prelude::*;
use burn_lora::train::Warmup;

/// What is asked, and the answer.
fn turns(ship: &str) -> [Message; 2] {
    let asked = format!("When is the {ship} due?");
    [
        Message::new("user", &asked),
        Message::new("assistant", "She will be here on Thursday."),
    ]
}

fn main() -> Result<(), Box<dyn Error>> {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/datasets/tiny-base"));
    let device = DeviceChoice::resolve(Some("flex"))?.open()?;
    // A model made for chats brings a template of its own.
    let template = ChatTemplate::chatml()?;
    let tokenizer = Tokenizer::from_folder(folder)?.with_chat_template(template.clone());
    let ships = ["Osprey", "Heron", "Tern", "Gannet", "Petrel", "Dunlin"];
    let conversations = ships.map(|ship| Row::Chat(Chat::new(turns(ship).to_vec())));
    let rows = Rows::new("conversations made here", conversations)?;
    let examples = encode(&rows, &tokenizer, &EncodeOptions::new(128))?.examples;

    let base = Decoder::load(folder, &LoadOptions::new(DType::F32, device))?;
    let model = attach(base, DEFAULT_NAME, &LoraConfig::new(8, 16.0))?;
    let options = EvaluateOptions {
        generate: false,
        ..EvaluateOptions::default()
    };
    let before = evaluate(&model, &tokenizer, &examples, &options)?;
    let config = TrainConfig {
        steps: 150,
        batch_size: 3,
        learning_rate: 4e-3,
        warmup: Warmup::Steps(2),
        ..TrainConfig::default()
    };
    let data = TrainData {
        train: examples.clone(),
        valid: Vec::new(),
        pad: tokenizer.pad(),
    };
    let tuned = finetune(model, &config, data, Observer::Nobody)?;
    let after = evaluate(&tuned.model, &tokenizer, &examples, &options)?;
    println!(
        "loss                 {:.3} -> {:.3}",
        before.loss, after.loss
    );

    let [asked, _] = turns("Curlew");
    let prompt = template.render(std::slice::from_ref(&asked), None, true)?;
    let request = GenerateOptions {
        max_new_tokens: 24,
        eos: tokenizer.stop_ids().to_vec(),
        ..GenerateOptions::default()
    };
    let (prompt, _) = tokenizer.encode_with_offsets(&prompt.text)?;
    let answers = generate(&tuned.model, &[prompt], &request)?;
    let answer = tokenizer.decode(&answers[0])?;
    println!("asked    When is the Curlew due?");
    // The end of a turn, which this tokenizer has no token for.
    println!(
        "answered {}",
        answer.split("<|im_end|>").next().unwrap_or("")
    );
    Ok(())
}
