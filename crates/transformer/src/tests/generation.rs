use super::*;
use crate::{
    BeamSearch, Decoding, Detokenizer, EarlyStopping, FinishReason, GenerateError, GenerateOptions,
    RequestFault, Sampling, Sequence, TextEvent, TokenEvent, generate, generate_sequences,
    generate_text, next_token_probabilities, stream_text, stream_tokens,
};

fn options(max_new_tokens: usize) -> GenerateOptions {
    GenerateOptions {
        max_new_tokens,
        ..GenerateOptions::default()
    }
}

fn sampled(max_new_tokens: usize, seed: u64) -> GenerateOptions {
    GenerateOptions {
        decoding: Decoding::Sample(Sampling {
            temperature: 2.0,
            ..Sampling::default()
        }),
        seed,
        ..options(max_new_tokens)
    }
}

fn beams(max_new_tokens: usize, num_beams: usize) -> GenerateOptions {
    GenerateOptions {
        decoding: Decoding::Beam(BeamSearch {
            num_beams,
            ..BeamSearch::default()
        }),
        num_return_sequences: num_beams,
        ..options(max_new_tokens)
    }
}

/// The log-probabilities after a sequence, computed anew.
fn log_probabilities(decoder: &Decoder, tokens: &[u32]) -> Vec<f32> {
    let logits = decoder.logits(ids(&[tokens]));
    let [_, seq, vocab] = logits.dims();
    let last = logits.slice([0..1, seq - 1..seq]).reshape([vocab]);
    let log_probabilities = burn::tensor::activation::log_softmax(last, 0);
    log_probabilities.into_data().try_to_vec().expect("f32")
}

/// The most likely continuation, the whole sequence computed anew for each token.
fn uncached(decoder: &Decoder, prompt: &[u32], new_tokens: usize) -> Vec<u32> {
    let mut tokens = prompt.to_vec();
    for _ in 0..new_tokens {
        let scores = log_probabilities(decoder, &tokens);
        let best = (0..scores.len()).max_by(|a, b| scores[*a].total_cmp(&scores[*b]));
        tokens.push(best.expect("a token") as u32);
    }
    tokens.split_off(prompt.len())
}

/// The most likely continuations as a whole, by a beam search that computes everything anew.
fn uncached_beams(
    decoder: &Decoder,
    prompt: &[u32],
    new_tokens: usize,
    num_beams: usize,
) -> Vec<(Vec<u32>, f32)> {
    let mut beams = vec![(Vec::new(), 0.0)];
    for _ in 0..new_tokens {
        let mut next = Vec::new();
        for (tokens, score) in &beams {
            let scores = log_probabilities(decoder, &[prompt, tokens].concat());
            next.extend((0..).zip(scores).map(|(token, log_probability)| {
                (
                    [tokens.as_slice(), &[token]].concat(),
                    score + log_probability,
                )
            }));
        }
        next.sort_by(|a, b| b.1.total_cmp(&a.1));
        next.truncate(num_beams);
        beams = next;
    }
    beams
}

fn prompts() -> Vec<Vec<u32>> {
    vec![vec![1, 2, 3, 4, 5], vec![9], vec![20, 21, 22]]
}

fn all_tokens(answers: Vec<Vec<Sequence>>) -> Vec<Vec<Vec<u32>>> {
    let tokens = |answers: Vec<Sequence>| answers.into_iter().map(|answer| answer.tokens).collect();
    answers.into_iter().map(tokens).collect()
}

#[test]
fn a_batch_with_the_cache_equals_each_prompt_alone_without() {
    for (name, decoder) in decoders() {
        let batch = generate(&decoder, &prompts(), &options(8)).expect("generated");
        for (prompt, tokens) in prompts().iter().zip(batch) {
            let alone = uncached(&decoder, prompt, 8);
            assert_eq!(tokens, alone, "{name} after {prompt:?}");
        }
    }
}

#[test]
fn beams_with_the_cache_equal_each_prompt_alone_without() {
    for (name, decoder) in decoders() {
        let batch = generate_sequences(&decoder, &prompts(), &beams(6, 3)).expect("generated");
        for (prompt, answers) in prompts().iter().zip(batch) {
            let alone = uncached_beams(&decoder, prompt, 6, 3);
            assert_eq!(answers.len(), 3);
            for (answer, (tokens, score)) in answers.iter().zip(alone) {
                assert_eq!(answer.tokens, tokens, "{name} after {prompt:?}");
                let distance = (answer.score.expect("a score") - score / 6.0).abs();
                assert!(distance < 1e-4, "{name}: {distance}");
                assert_eq!(answer.finish, FinishReason::Length);
            }
        }
    }
}

#[test]
fn one_beam_is_greedy() {
    for (name, decoder) in decoders() {
        let beam = generate(&decoder, &prompts(), &beams(8, 1)).expect("generated");
        let greedy = generate(&decoder, &prompts(), &options(8)).expect("generated");
        assert_eq!(beam, greedy, "{name}");
    }
}

#[test]
fn more_beams_than_there_are_answers_find_them_all() {
    let (_, decoder) = decoders().remove(0);
    let options = GenerateOptions {
        num_return_sequences: 40,
        ..beams(1, usize::MAX)
    };
    let answers = generate_sequences(&decoder, &prompts(), &options).expect("generated");
    assert!(answers.iter().all(|answers| answers.len() == 31));
}

#[test]
fn a_row_ends_at_its_own_end_token() {
    for (name, decoder) in decoders() {
        let free = generate(&decoder, &prompts(), &options(12)).expect("generated");
        // Two ends, so that rows leave the batch one after the other.
        let eos = vec![free[1][3], free[2][6]];
        let options = GenerateOptions {
            eos: eos.clone(),
            ..options(12)
        };
        let ended = generate_sequences(&decoder, &prompts(), &options).expect("generated");
        for (free, ended) in free.iter().zip(&ended) {
            let end = free.iter().position(|token| eos.contains(token));
            let (tokens, finish) = match end {
                Some(end) => (&free[..end], FinishReason::Eos(free[end])),
                None => (&free[..], FinishReason::Length),
            };
            assert_eq!(ended[0].tokens, tokens, "{name}");
            assert_eq!(ended[0].finish, finish, "{name}");
        }
    }
}

#[test]
fn the_end_token_waits_for_the_fewest_tokens() {
    let (_, decoder) = decoders().remove(0);
    let free = generate(&decoder, &prompts(), &options(8)).expect("generated");
    let options = GenerateOptions {
        min_new_tokens: 5,
        eos: vec![free[0][1]],
        ..options(8)
    };
    let late = generate(&decoder, &prompts(), &options).expect("generated");
    assert!(late.iter().all(|tokens| tokens.len() >= 5));
    assert!(late.iter().all(|tokens| !tokens.contains(&free[0][1])));
}

#[test]
fn the_seed_decides_random_choices() {
    let (_, decoder) = decoders().remove(0);
    let sample = |seed| generate(&decoder, &prompts(), &sampled(12, seed)).expect("generated");
    assert_eq!(sample(1), sample(1));
    assert_ne!(sample(1), sample(2));
}

#[test]
fn a_row_draws_the_same_whatever_stands_beside_it() {
    let (_, decoder) = decoders().remove(0);
    let many = |prompts: &[Vec<u32>], count| {
        let options = GenerateOptions {
            num_return_sequences: count,
            ..sampled(12, 4)
        };
        all_tokens(generate_sequences(&decoder, prompts, &options).expect("generated"))
    };
    let all = many(&prompts(), 3);
    assert_ne!(all[0][0], all[0][1]);
    assert_eq!(many(&prompts()[..1], 3)[0], all[0]);
    assert_eq!(many(&prompts(), 1)[2][0], all[2][0]);
    let others = [vec![7; 9], prompts().remove(1)];
    assert_eq!(many(&others, 2)[1], all[1][..2]);
}

#[test]
fn draws_follow_the_distribution() {
    let (_, decoder) = decoders().remove(0);
    let options = GenerateOptions {
        num_return_sequences: 4000,
        ..sampled(1, 9)
    };
    let prompt = [vec![3, 1, 4]];
    let expected = next_token_probabilities(&decoder, &prompt, &options).expect("computed");
    let drawn = generate_sequences(&decoder, &prompt, &options).expect("generated");
    let mut shares = vec![0.0; expected[0].len()];
    for answer in &drawn[0] {
        shares[answer.tokens[0] as usize] += 1.0 / 4000.0;
    }
    for (share, expected) in shares.iter().zip(&expected[0]) {
        assert!(
            (share - expected).abs() < 0.04,
            "{share} instead of {expected}"
        );
    }
}

#[test]
fn nothing_asked_is_nothing_done() {
    let (_, decoder) = decoders().remove(0);
    for options in [options(3), beams(3, 2)] {
        let none = generate(&decoder, &[], &options).expect("nothing");
        assert!(none.is_empty());
        let options = GenerateOptions {
            max_new_tokens: 0,
            ..options
        };
        let none = generate(&decoder, &prompts(), &options).expect("nothing");
        assert_eq!(none, vec![Vec::<u32>::new(); 3]);
    }
}

#[test]
fn the_options_that_forbid_every_token_are_an_error() {
    let (_, decoder) = decoders().remove(0);
    let everything: Vec<u32> = (0..31).collect();
    for decoding in [options(2), sampled(2, 0), beams(2, 2)] {
        let options = GenerateOptions {
            max_new_tokens: 1,
            no_repeat_ngram_size: Some(1),
            ..decoding
        };
        let prompts = [vec![1], everything.clone()];
        let error = generate(&decoder, &prompts, &options).expect_err("no token is left");
        assert!(
            matches!(error, GenerateError::NoTokenLeft { row: 1, tokens: 0 }),
            "{error}"
        );
    }
}

#[test]
fn a_request_that_cannot_be_met_names_every_fault() {
    let (_, decoder) = decoders().remove(0);
    let options = GenerateOptions {
        eos: vec![31],
        repetition_penalty: 0.0,
        ..beams(3, 0)
    };
    let prompts = [vec![1], vec![], vec![99, 31], vec![2; 30]];
    let detokenizer = words().with_stop_strings(["", "x"]);
    let error = stream_text(&decoder, &prompts, &options, &detokenizer).err();
    let Some(GenerateError::Request { faults }) = error else {
        panic!("refused as a request")
    };
    let too_long = faults.iter().find_map(|fault| match fault {
        RequestFault::TooLong { rows, longest, .. } => Some((rows.clone(), longest.length)),
        _ => None,
    });
    assert_eq!(too_long, Some((vec![3], 33)));
    // Also: an empty prompt, unknown tokens and end, penalty, beams, no answer asked for, stop string, stream.
    assert_eq!(faults.len(), 9, "{faults:#?}");
}

#[test]
fn the_stream_of_tokens_is_what_is_generated() {
    let (_, decoder) = decoders().remove(0);
    let options = GenerateOptions {
        num_return_sequences: 2,
        ..sampled(6, 3)
    };
    let mut rows = vec![Vec::new(); 6];
    let mut stream = stream_tokens(&decoder, &prompts(), &options).expect("valid");
    let mut ends = 0;
    for event in stream.by_ref() {
        match event.expect("generated") {
            TokenEvent::Token { row, token } => rows[row].push(token),
            TokenEvent::End { finish, .. } => {
                assert_eq!(finish, FinishReason::Length);
                ends += 1;
            }
        }
    }
    assert_eq!(ends, 6);
    let expected = generate_sequences(&decoder, &prompts(), &options).expect("generated");
    assert_eq!(stream.into_sequences(), expected);
    assert_eq!(rows, all_tokens(expected).concat());
}

#[test]
fn a_row_can_be_stopped_while_others_go_on() {
    let (_, decoder) = decoders().remove(0);
    let expected = generate(&decoder, &prompts(), &options(8)).expect("generated");
    let mut stream = stream_tokens(&decoder, &prompts(), &options(8)).expect("valid");
    while let Some(event) = stream.next() {
        if let TokenEvent::Token { row: 1, .. } = event.expect("generated") {
            stream.stop(1);
        }
    }
    let answers = stream.into_sequences();
    assert_eq!(answers[1][0].finish, FinishReason::Stopped);
    assert_eq!(answers[1][0].tokens, expected[1][..1]);
    for row in [0, 2] {
        assert_eq!(answers[row][0].tokens, expected[row]);
    }
}

/// Token 5 is `f `, token 30 is `€ `.
fn words() -> Detokenizer<'static> {
    Detokenizer::new(|tokens: &[u32]| -> Result<String, String> {
        let letter = |token: &u32| match b'a' + *token as u8 {
            letter @ b'a'..=b'z' => char::from(letter),
            _ => '€',
        };
        Ok(tokens
            .iter()
            .flat_map(|token| [letter(token), ' '])
            .collect())
    })
}

#[test]
fn text_ends_before_a_stop_string_in_every_way_of_decoding() {
    for (name, decoder) in decoders() {
        for options in [options(10), sampled(10, 5), beams(10, 3)] {
            let free = generate_text(&decoder, &prompts(), &options, &words()).expect("generated");
            let whole = &free[2][0].text;
            assert_eq!(whole.chars().count(), 20, "{name}");
            // Across the border of two tokens.
            let stop: String = whole.chars().skip(5).take(3).collect();
            let detokenizer = words().with_stop_strings([stop.as_str()]);
            let ended =
                generate_text(&decoder, &prompts(), &options, &detokenizer).expect("generated");
            for answers in &ended {
                for answer in answers {
                    assert!(!answer.text.contains(&stop), "{name}: {}", answer.text);
                    let is_short = answer.text.chars().count() < 20;
                    let expected = match is_short {
                        true => FinishReason::StopString(stop.clone()),
                        false => FinishReason::Length,
                    };
                    assert_eq!(answer.sequence.finish, expected, "{name}: {}", answer.text);
                }
            }
            if !matches!(options.decoding, Decoding::Beam(_)) {
                let end = whole.find(&stop).expect("it was cut from it");
                assert_eq!(ended[2][0].text, whole[..end], "{name}");
            }
        }
    }
}

#[test]
fn the_stream_of_text_is_what_is_generated() {
    let (_, decoder) = decoders().remove(0);
    for stop in ["€", "c ", "e", "never"] {
        let detokenizer = words().with_stop_strings([stop, "d f"]);
        let mut texts = vec![String::new(); 3];
        let mut finishes = vec![None; 3];
        let stream = stream_text(&decoder, &prompts(), &sampled(12, 8), &detokenizer);
        for event in stream.expect("valid") {
            match event.expect("generated") {
                TextEvent::Text { row, text } => {
                    assert!(!text.is_empty() && finishes[row].is_none());
                    texts[row].push_str(&text);
                }
                TextEvent::End { row, finish } => finishes[row] = Some(finish),
            }
        }
        let expected = generate_text(&decoder, &prompts(), &sampled(12, 8), &detokenizer);
        for (row, answers) in expected.expect("generated").into_iter().enumerate() {
            assert_eq!(texts[row], answers[0].text);
            assert_eq!(finishes[row].as_ref(), Some(&answers[0].sequence.finish));
        }
    }
}

#[test]
fn beams_end_early_as_they_are_told() {
    let (_, decoder) = decoders().remove(0);
    let with = |early_stopping| {
        let search = BeamSearch {
            num_beams: 3,
            early_stopping,
            length_penalty: 1.5,
        };
        let options = GenerateOptions {
            decoding: Decoding::Beam(search),
            eos: vec![3, 8, 12, 20, 29],
            ..options(16)
        };
        let answers = generate_sequences(&decoder, &prompts(), &options).expect("generated");
        let scores = answers
            .iter()
            .map(|answers| answers[0].score.expect("a score"));
        scores.collect::<Vec<_>>()
    };
    // Searching longer never finds worse.
    let (always, never) = (with(EarlyStopping::Always), with(EarlyStopping::Never));
    assert!(
        always
            .iter()
            .zip(&never)
            .all(|(always, never)| never >= always)
    );
    assert_ne!(always, never);
}

#[test]
fn selected_rows_go_on_as_if_they_had_been_there() {
    for (name, decoder) in decoders() {
        let rows: [&[u32]; 3] = [&[1, 2, 3, 4], &[5, 6, 7, 8], &[9, 10, 11, 12]];
        let next = |tokens: &[u32], cache: &mut crate::KvCache| {
            let tokens: Vec<&[u32]> = tokens.chunks(1).collect();
            decoder.hidden_cached(ids(&tokens), None, cache)
        };
        for selected in [vec![2, 0, 1], vec![0, 0, 2], vec![1], vec![2, 2, 1, 0, 0]] {
            let mut cache = decoder.new_cache(7);
            decoder.hidden_cached(ids(&rows), None, &mut cache);
            cache.select_rows(&selected, 0);
            let chosen: Vec<&[u32]> = selected.iter().map(|row| rows[*row]).collect();
            let mut expected = decoder.new_cache(7);
            decoder.hidden_cached(ids(&chosen), None, &mut expected);
            for step in 0..2 {
                let tokens: Vec<u32> = (0..selected.len() as u32).map(|row| row + step).collect();
                let (a, b) = (next(&tokens, &mut cache), next(&tokens, &mut expected));
                assert_close(name, a, b, 1e-6);
            }
        }
    }
}

#[test]
fn rows_with_a_common_beginning_move_only_the_rest() {
    let (name, decoder) = decoders().remove(0);
    let rows: [&[u32]; 2] = [&[1, 2, 3, 4], &[1, 2, 7, 8]];
    let swapped: [&[u32]; 2] = [rows[1], rows[0]];
    let [mut cache, mut expected] = [decoder.new_cache(6), decoder.new_cache(6)];
    decoder.hidden_cached(ids(&rows), None, &mut cache);
    decoder.hidden_cached(ids(&swapped), None, &mut expected);
    cache.select_rows(&[1, 0], 2);
    let next = |cache: &mut crate::KvCache| decoder.hidden_cached(ids(&[&[5], &[6]]), None, cache);
    assert_close(name, next(&mut cache), next(&mut expected), 1e-6);
}
