//! Greedy generation under an adapter.

use burn::tensor::{Int, Tensor};
use burn_lora::transformer::{GenerateOptions, generate};
use burn_lora_tests::Golden;

use crate::common::on_each_case;

#[test]
fn greedy_generation_with_the_cache_matches() {
    on_each_case(|golden, device| {
        let actual =
            generate(&golden.trained(&device), &golden.prompts(), &greedy(golden)).unwrap();
        assert_eq!(actual, golden.continuations(), "{}", golden.name);
    });
}

#[test]
fn a_prompt_generates_alone_what_it_generates_in_a_batch() {
    on_each_case(|golden, device| {
        let model = golden.trained(&device);
        for (prompt, expected) in golden.prompts().into_iter().zip(golden.continuations()) {
            let actual = generate(&model, &[prompt], &greedy(golden)).unwrap();
            assert_eq!(actual, [expected], "{}", golden.name);
        }
    });
}

#[test]
fn greedy_generation_without_the_cache_matches() {
    on_each_case(|golden, device| {
        let model = golden.trained(&device);
        for (prompt, expected) in golden.prompts().into_iter().zip(golden.continuations()) {
            let mut ids = prompt.clone();
            for _ in &expected {
                let row: Vec<i64> = ids.iter().map(|id| i64::from(*id)).collect();
                let input = Tensor::<1, Int>::from_data(row.as_slice(), &device).unsqueeze::<2>();
                let logits = model.logits(input); // [1, seq, vocab]
                let last = logits.slice([0..1, ids.len() - 1..ids.len()]);
                ids.push(last.argmax(2).into_scalar::<i64>() as u32);
            }
            assert_eq!(ids[prompt.len()..], expected, "{}", golden.name);
        }
    });
}

#[test]
fn generation_stops_after_the_end_of_sequence() {
    on_each_case(|golden, device| {
        let (model, prompts) = (golden.trained(&device), golden.prompts());
        let expected = golden.continuations();
        // A token that some row says before its end; other rows may go on.
        let eos = expected[0][expected[0].len() / 2];
        let options = GenerateOptions {
            eos: vec![eos],
            ..greedy(golden)
        };
        let actual = generate(&model, &prompts, &options).unwrap();
        for (actual, expected) in actual.iter().zip(&expected) {
            let end = expected
                .iter()
                .position(|id| *id == eos)
                .unwrap_or(expected.len());
            assert_eq!(actual[..], expected[..end], "{}", golden.name);
        }
    });
}

fn greedy(golden: &Golden) -> GenerateOptions {
    GenerateOptions {
        max_new_tokens: golden.shape("generate.new_ids")[1],
        ..GenerateOptions::default()
    }
}
