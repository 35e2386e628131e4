use super::t5::{config, logits, model, original};
use crate::{
    BeamSearch, Decoding, Detokenizer, GenerateError, GenerateOptions, Generative, RequestFault,
    Sampling, Sequence, T5, TextEvent, generate, generate_sequences, generate_text, stream_text,
};

fn options(max_new_tokens: usize, decoding: Decoding) -> GenerateOptions {
    GenerateOptions {
        max_new_tokens,
        decoding,
        ..GenerateOptions::default()
    }
}

fn beams(num_beams: usize) -> Decoding {
    Decoding::Beam(BeamSearch {
        num_beams,
        ..BeamSearch::default()
    })
}

fn rows() -> Vec<Vec<u32>> {
    vec![vec![1, 2, 3, 4, 5], vec![7, 6], vec![9, 8, 7]]
}

fn tokens(answers: Vec<Vec<Sequence>>) -> Vec<Vec<Vec<u32>>> {
    let answers = answers.into_iter();
    let of = |answers: Vec<Sequence>| answers.into_iter().map(|answer| answer.tokens).collect();
    answers.map(of).collect()
}

/// The log-probabilities of what follows `written`, computed without a cache.
fn log_probabilities(model: &T5, row: &[u32], written: &[u32]) -> Vec<f32> {
    let batch = model.batch(&[row.to_vec()]).expect("it fits");
    let before = [&[0], written].concat();
    let all = logits(model, &batch, &[&before]); // [1, written + 1, vocab]
    let last = all.narrow(1, written.len(), 1);
    let last = burn::tensor::activation::log_softmax(last, 2);
    last.into_data().try_to_vec().expect("f32")
}

/// The most likely answers of a length, by a beam search that computes everything anew.
fn uncached_beams(model: &T5, row: &[u32], length: usize, beams: usize) -> Vec<Vec<u32>> {
    let mut running: Vec<(Vec<u32>, f32)> = vec![(Vec::new(), 0.0)];
    for _ in 0..length {
        let mut next = Vec::new();
        for (written, score) in &running {
            for (token, more) in (0..).zip(log_probabilities(model, row, written)) {
                next.push(([written.as_slice(), &[token]].concat(), score + more));
            }
        }
        next.sort_by(|a, b| b.1.total_cmp(&a.1));
        next.truncate(beams);
        running = next;
    }
    running.into_iter().map(|(written, _)| written).collect()
}

#[test]
fn a_batch_with_the_cache_equals_each_row_alone_without() {
    for config in [config(), original()] {
        let model = model(config);
        let greedy = generate(&model, &rows(), &options(5, Decoding::Greedy)).expect("written");
        for (row, written) in rows().iter().zip(&greedy) {
            assert_eq!(
                std::slice::from_ref(written),
                uncached_beams(&model, row, 5, 1)
            );
        }
        let options = GenerateOptions {
            num_return_sequences: 3,
            ..options(4, beams(3))
        };
        let found = generate_sequences(&model, &rows(), &options).expect("written");
        for (row, found) in rows().iter().zip(tokens(found)) {
            assert_eq!(found, uncached_beams(&model, row, 4, 3));
        }
    }
}

#[test]
fn rows_of_unequal_length_end_one_by_one() {
    let model = model(original());
    let free = generate(&model, &rows(), &options(6, Decoding::Greedy)).expect("written");
    // The first token of the first row ends every row that comes upon it.
    let eos = free[0][0];
    let ended = GenerateOptions {
        eos: vec![eos],
        ..options(6, Decoding::Greedy)
    };
    let ended = generate(&model, &rows(), &ended).expect("written");
    assert!(ended[0].is_empty());
    for (free, ended) in free.iter().zip(&ended) {
        let length = free.iter().position(|token| *token == eos);
        assert_eq!(*ended, free[..length.unwrap_or(6)]);
    }
}

#[test]
fn a_row_draws_the_same_whatever_stands_beside_it() {
    let model = model(config());
    let options = GenerateOptions {
        num_return_sequences: 2,
        seed: 5,
        ..options(6, Decoding::Sample(Sampling::default()))
    };
    let together = tokens(generate_sequences(&model, &rows(), &options).expect("written"));
    let alone = tokens(generate_sequences(&model, &rows()[..1], &options).expect("written"));
    assert_eq!(together[0], alone[0]);
    assert_ne!(together[0][0], together[0][1]);
}

#[test]
fn text_ends_before_a_stop_string_and_is_streamed() {
    let model = model(config());
    let varied = |decoding| GenerateOptions {
        repetition_penalty: 2.0,
        ..options(6, decoding)
    };
    let free = generate(&model, &rows(), &varied(Decoding::Greedy)).expect("written");
    let words = |ids: &[u32]| -> Result<String, std::fmt::Error> {
        // The token that the decoder starts from is no text.
        let ids = ids.iter().filter(|id| **id != 0);
        Ok(ids.map(|id| format!("<{id}>")).collect())
    };
    let later = free[0].iter().find(|token| **token != free[0][0]);
    let last = *later.expect("more than one token");
    let stop = format!("<{last}>");
    let detokenizer = Detokenizer::new(words).with_stop_strings([stop.clone()]);
    for decoding in [Decoding::Greedy, beams(2)] {
        let answers =
            generate_text(&model, &rows(), &varied(decoding), &detokenizer).expect("written");
        for answer in answers.iter().flatten() {
            assert!(!answer.text.contains(&stop), "{}", answer.text);
        }
    }
    let options = varied(Decoding::Greedy);
    let whole = generate_text(&model, &rows(), &options, &detokenizer).expect("written");
    let mut streamed = vec![String::new(); rows().len()];
    for event in stream_text(&model, &rows(), &options, &detokenizer).expect("a stream") {
        if let TextEvent::Text { row, text } = event.expect("text") {
            streamed[row].push_str(&text);
        }
    }
    let whole: Vec<String> = whole.into_iter().map(|mut of| of.remove(0).text).collect();
    assert_eq!(streamed, whole);
    let until = free[0].iter().take_while(|token| **token != last);
    let expected: String = until.map(|id| format!("<{id}>")).collect();
    assert!(!expected.is_empty());
    assert_eq!(whole[0], expected);
}

#[test]
fn a_request_that_cannot_be_met_names_every_fault() {
    let model = model(config());
    let bad = GenerateOptions {
        eos: vec![31],
        ..options(3, Decoding::Greedy)
    };
    let error = generate(&model, &[vec![], vec![1, 40]], &bad).expect_err("refused");
    let GenerateError::Request { faults } = error else {
        panic!("{error}");
    };
    assert_eq!(
        faults,
        [
            RequestFault::EmptyPrompts { rows: vec![0] },
            RequestFault::UnknownTokens {
                tokens: vec![40],
                rows: vec![1],
                vocab_size: 31
            },
            RequestFault::UnknownEos {
                tokens: vec![31],
                vocab_size: 31
            },
        ]
    );
    let nothing = generate(&model, &[], &options(3, beams(2))).expect("nothing to do");
    assert!(nothing.is_empty());
    assert!(model.check_room(1 << 20, 1 << 20).is_ok());
}
