//! Greedy decoding, beam search and processed distributions against `transformers`' `generate`.

use std::fs;
use std::path::{Path, PathBuf};

use burn::tensor::DType;
use burn_lora::data::Tokenizer;
use burn_lora::transformer::{
    BeamSearch, Decoder, Decoding, Detokenizer, EarlyStopping, GenerateOptions, LoadOptions,
    Sampling, Sequence, T5, TextEvent, generate_sequences, generate_text, next_token_probabilities,
    stream_text,
};
use burn_lora_tests::{Golden, assert_close, on_each_device};
use safetensors::SafeTensors;
use serde_json::Value;

/// Of sums of log-probabilities over up to 14 tokens.
const SCORE: f32 = 1e-4;
const PROBABILITY: f32 = 1e-5;

/// One request and what `transformers` makes of it.
struct Case {
    name: String,
    model: String,
    prompts: Vec<Vec<u32>>,
    options: GenerateOptions,
    /// The answers to each prompt; none for a distribution.
    answers: Vec<Vec<Vec<u32>>>,
}

/// A model of a case; `generate` is the same for all.
#[allow(clippy::large_enum_variant, reason = "there is one of a case")]
enum Model {
    Decoder(Decoder),
    T5(T5),
}

impl Model {
    fn sequences(&self, case: &Case, prompts: &[Vec<u32>]) -> Vec<Vec<Sequence>> {
        match self {
            Self::Decoder(model) => generate_sequences(model, prompts, &case.options),
            Self::T5(model) => generate_sequences(model, prompts, &case.options),
        }
        .unwrap()
    }

    fn probabilities(&self, case: &Case) -> Vec<Vec<f32>> {
        let (prompts, options) = (&case.prompts, &case.options);
        match self {
            Self::Decoder(model) => next_token_probabilities(model, prompts, options),
            Self::T5(model) => next_token_probabilities(model, prompts, options),
        }
        .unwrap()
    }
}

#[test]
fn greedy_and_beam_answers_match() {
    let reference = reference();
    let tensors = SafeTensors::deserialize(&reference).unwrap();
    on_each_case("greedy", |case, model| {
        let actual = model.sequences(case, &case.prompts);
        let actual: Vec<Vec<_>> = actual.into_iter().map(tokens).collect();
        assert_eq!(actual, case.answers, "{}", case.name);
    });
    on_each_case("beam", |case, model| {
        let actual = model.sequences(case, &case.prompts);
        let scores = actual.iter().flatten().map(|answer| answer.score.unwrap());
        let scores: Vec<f32> = scores.collect();
        let actual: Vec<Vec<_>> = actual.into_iter().map(tokens).collect();
        assert_eq!(actual, case.answers, "{}", case.name);
        assert_close(&case.name, &scores, &floats(&tensors, &case.name), SCORE);
    });
}

#[test]
fn an_answer_alone_is_that_in_the_batch() {
    for kind in ["greedy", "beam"] {
        on_each_case(kind, |case, model| {
            for (prompt, expected) in case.prompts.iter().zip(&case.answers) {
                let prompt = std::slice::from_ref(prompt);
                let mut alone = model.sequences(case, prompt);
                assert_eq!(tokens(alone.remove(0)), *expected, "{}", case.name);
            }
        });
    }
}

#[test]
fn the_distributions_that_sampling_draws_from_match() {
    let reference = reference();
    let tensors = SafeTensors::deserialize(&reference).unwrap();
    on_each_case("sample", |case, model| {
        let actual = model.probabilities(case);
        let (actual, expected) = (actual.concat(), floats(&tensors, &case.name));
        assert_close(&case.name, &actual, &expected, PROBABILITY);
        let kept = |p: &[f32]| p.iter().map(|p| *p > 0.0).collect::<Vec<_>>();
        assert_eq!(kept(&actual), kept(&expected), "{}", case.name);
    });
}

#[test]
fn texts_and_their_stop_strings_match() {
    let base = Path::new(env!("CARGO_MANIFEST_DIR")).join("../datasets/tiny-base");
    let tokenizer = Tokenizer::from_folder(&base).unwrap();
    let cases: Vec<Value> = cases()
        .into_iter()
        .filter(|case| case["kind"] == "text")
        .collect();
    assert_eq!(cases.len(), 5);
    on_each_device(|device| {
        let decoder = Decoder::load(&base, &LoadOptions::new(DType::F32, device)).unwrap();
        for case in &cases {
            let name = case["name"].as_str().unwrap();
            let prompts = strings(&case["prompts"]);
            let prompts: Vec<Vec<u32>> = prompts
                .iter()
                .map(|prompt| tokenizer.encode_prompt(prompt).unwrap())
                .collect();
            let options = GenerateOptions {
                eos: tokenizer.stop_ids().to_vec(),
                ..options(case)
            };
            let stop = &case["options"]["stop_strings"];
            let stop = if stop.is_null() {
                Vec::new()
            } else {
                strings(stop)
            };
            let detokenizer =
                Detokenizer::new(|ids: &[u32]| tokenizer.decode(ids)).with_stop_strings(stop);
            let actual = generate_text(&decoder, &prompts, &options, &detokenizer).unwrap();
            let (tokens, texts): (Vec<_>, Vec<_>) = actual
                .into_iter()
                .map(|mut answers| answers.remove(0))
                .map(|answer| (vec![answer.sequence.tokens], answer.text))
                .unzip();
            assert_eq!(texts, strings(&case["texts"]), "{name}");
            assert_eq!(tokens, answers(case), "{name}");
            if let Decoding::Greedy = options.decoding {
                assert_eq!(
                    streamed(&decoder, &prompts, &options, &detokenizer),
                    texts,
                    "{name}"
                );
            }
        }
    });
}

/// The texts as they come in pieces.
fn streamed(
    decoder: &Decoder,
    prompts: &[Vec<u32>],
    options: &GenerateOptions,
    detokenizer: &Detokenizer<'_>,
) -> Vec<String> {
    let mut texts = vec![String::new(); prompts.len()];
    for event in stream_text(decoder, prompts, options, detokenizer).unwrap() {
        if let TextEvent::Text { row, text } = event.unwrap() {
            texts[row].push_str(&text);
        }
    }
    texts
}

fn tokens(answers: Vec<Sequence>) -> Vec<Vec<u32>> {
    answers.into_iter().map(|answer| answer.tokens).collect()
}

fn on_each_case(kind: &str, test: impl Fn(&Case, &Model)) {
    let cases = cases();
    on_each_device(|device| {
        for name in ["llama", "gpt2", "t5", "mt5"] {
            let golden = Golden::open(name);
            let options = LoadOptions::new(DType::F32, device.clone());
            let model = match name.ends_with("t5") {
                true => Model::T5(T5::load(&golden.model_folder(), &options).unwrap()),
                false => Model::Decoder(golden.base(&device)),
            };
            let mut count = 0;
            for case in cases.iter().filter_map(|case| read(case, kind)) {
                if case.model == name {
                    test(&case, &model);
                    count += 1;
                }
            }
            assert!(count >= 5, "{count} cases of {kind} for {name}");
        }
    });
}

fn cases() -> Vec<Value> {
    let path = folder().join("cases.json");
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/decoding")
}

fn reference() -> Vec<u8> {
    fs::read(folder().join("reference.safetensors")).unwrap()
}

fn floats(tensors: &SafeTensors<'_>, name: &str) -> Vec<f32> {
    let bytes = tensors.tensor(name).unwrap().data().to_vec();
    bytemuck::pod_collect_to_vec(&bytes)
}

/// A case, if it is of the kind.
fn read(case: &Value, kind: &str) -> Option<Case> {
    if case["kind"] != kind {
        return None;
    }
    Some(Case {
        name: case["name"].as_str().unwrap().to_owned(),
        model: case["model"].as_str().unwrap().to_owned(),
        prompts: rows(&case["prompts"]),
        options: options(case),
        answers: answers(case),
    })
}

fn answers(case: &Value) -> Vec<Vec<Vec<u32>>> {
    let answers = case["answers"].as_array();
    answers.map_or(Vec::new(), |answers| answers.iter().map(rows).collect())
}

fn rows(value: &Value) -> Vec<Vec<u32>> {
    serde_json::from_value(value.clone()).unwrap()
}

fn strings(value: &Value) -> Vec<String> {
    serde_json::from_value(value.clone()).unwrap()
}

/// The options of `generate` as ours; an unknown one fails the test.
fn options(case: &Value) -> GenerateOptions {
    let mut options = GenerateOptions {
        max_new_tokens: case["max_new_tokens"].as_u64().unwrap_or(1) as usize,
        ..GenerateOptions::default()
    };
    let (mut search, mut sampling) = (BeamSearch::default(), Sampling::default());
    for (name, value) in case["options"].as_object().unwrap() {
        let float = || value.as_f64().unwrap();
        let count = || value.as_u64().unwrap() as usize;
        match name.as_str() {
            "eos_token_id" => options.eos = serde_json::from_value(value.clone()).unwrap(),
            "min_new_tokens" => options.min_new_tokens = count(),
            "num_return_sequences" => options.num_return_sequences = count(),
            "repetition_penalty" => options.repetition_penalty = float(),
            "no_repeat_ngram_size" => options.no_repeat_ngram_size = Some(count()),
            "num_beams" => search.num_beams = count(),
            "length_penalty" => search.length_penalty = float(),
            "early_stopping" if value == "never" => search.early_stopping = EarlyStopping::Never,
            "early_stopping" => search.early_stopping = EarlyStopping::Always,
            "temperature" => sampling.temperature = float(),
            "top_k" => sampling.top_k = Some(count()),
            "top_p" => sampling.top_p = Some(float()),
            "min_p" => sampling.min_p = Some(float()),
            "stop_strings" => (), // the detokenizer's
            other => panic!("no option {other}"),
        }
    }
    options.decoding = match case["kind"].as_str().unwrap() {
        "sample" => Decoding::Sample(sampling),
        _ if case["options"]["num_beams"].is_null() => Decoding::Greedy,
        _ => Decoding::Beam(search),
    };
    options
}
