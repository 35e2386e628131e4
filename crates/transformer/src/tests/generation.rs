use super::*;
use crate::{GenerateError, GenerateOptions, Sampling, generate};

fn options(max_new_tokens: usize) -> GenerateOptions {
    GenerateOptions {
        max_new_tokens,
        ..GenerateOptions::default()
    }
}

/// The most likely continuation, the whole sequence computed anew for each token.
fn uncached(decoder: &Decoder, prompt: &[u32], new_tokens: usize) -> Vec<u32> {
    let mut tokens = prompt.to_vec();
    for _ in 0..new_tokens {
        let seq = tokens.len();
        let logits = decoder.logits(ids(&[&tokens]));
        let last = logits.slice([0..1, seq - 1..seq]);
        let next: i64 = last.argmax(2).into_scalar();
        tokens.push(next as u32);
    }
    tokens.split_off(prompt.len())
}

fn prompts() -> Vec<Vec<u32>> {
    vec![vec![1, 2, 3, 4, 5], vec![9], vec![20, 21, 22]]
}

#[test]
fn a_batch_with_the_cache_equals_each_prompt_alone_without() {
    for (name, decoder) in decoders() {
        let batch = generate(&decoder, &prompts(), &options(8)).expect("generated");
        for (prompt, tokens) in prompts().iter().zip(batch) {
            assert_eq!(
                tokens,
                uncached(&decoder, prompt, 8),
                "{name} after {prompt:?}"
            );
        }
    }
}

#[test]
fn a_row_ends_at_its_own_end_token() {
    for (name, decoder) in decoders() {
        let free = generate(&decoder, &prompts(), &options(8)).expect("generated");
        let end = free[1][3];
        let options = GenerateOptions {
            eos: vec![end],
            ..options(8)
        };
        let ended = generate(&decoder, &prompts(), &options).expect("generated");
        for (free, ended) in free.iter().zip(&ended) {
            let cut = free.iter().position(|token| *token == end);
            assert_eq!(ended, &free[..cut.unwrap_or(free.len())], "{name}");
        }
    }
}

#[test]
fn the_seed_decides_random_choices() {
    let (_, decoder) = decoders().remove(0);
    let sample = |seed| {
        let options = GenerateOptions {
            sampling: Sampling::Random {
                temperature: 2.0,
                top_k: None,
                top_p: None,
            },
            seed,
            ..options(12)
        };
        generate(&decoder, &prompts(), &options).expect("generated")
    };
    assert_eq!(sample(1), sample(1));
    assert_ne!(sample(1), sample(2));
}

#[test]
fn nothing_asked_is_nothing_done() {
    let (_, decoder) = decoders().remove(0);
    assert!(
        generate(&decoder, &[], &options(3))
            .expect("nothing")
            .is_empty()
    );
    let none = generate(&decoder, &prompts(), &options(0)).expect("nothing");
    assert_eq!(none, vec![Vec::<u32>::new(); 3]);
}

#[test]
fn prompts_that_cannot_be_continued_are_named() {
    let (_, decoder) = decoders().remove(0);
    let run =
        |prompts: &[Vec<u32>], n| generate(&decoder, prompts, &options(n)).expect_err("refused");

    let error = run(&[vec![1], vec![], vec![]], 1);
    assert!(matches!(error, GenerateError::EmptyPrompt { rows } if rows == [1, 2]));

    let error = run(&[vec![1], vec![99, 31], vec![99]], 1);
    let GenerateError::UnknownToken { tokens, rows, .. } = error else {
        panic!("{error}")
    };
    assert_eq!((tokens, rows), (vec![31, 99], vec![1, 2]));

    let error = run(&[vec![1], vec![2; 30]], 3);
    assert!(matches!(error, GenerateError::TooLong { row: 1, source } if source.length == 33));
}
