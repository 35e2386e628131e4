//! Prompts with adapters of their own are continued as alone.

use super::*;
use crate::{
    BeamSearch, Decoding, GenerateError, GenerateOptions, Generative, RequestFault, Sampling,
    generate,
};

/// The first tokens after which rows end: all but one at other steps.
fn ends() -> Vec<u32> {
    (0..31).step_by(4).collect()
}

fn options(decoding: Decoding) -> GenerateOptions {
    GenerateOptions {
        max_new_tokens: 6,
        eos: ends(),
        decoding,
        ..GenerateOptions::default()
    }
}

fn prompts_are_continued_as_alone<M: WithRows + Generative>(what: &str, base: &M) {
    let all = with(base, &every_name());
    let prompts: Vec<Vec<u32>> = ROWS.iter().map(|row| row.to_vec()).collect();
    let beams = Decoding::Beam(BeamSearch {
        num_beams: 3,
        ..BeamSearch::default()
    });
    for names in batches() {
        let mixed = all.clone().with_rows(Some(&names)).expect(what);
        for options in [options(Decoding::Greedy), options(beams)] {
            let together = generate(&mixed, &prompts, &options).expect(what);
            for (row, name) in names.into_iter().enumerate() {
                let alone = with(base, &Vec::from_iter(name));
                let alone = generate(&alone, &prompts[row..=row], &options).expect(what);
                assert_eq!(together[row], alone[0], "{what}, {name:?} among {names:?}");
            }
        }
    }
    // Several answers to each prompt, and several prompts of one name.
    let names = [Some("prefix"), Some("all")];
    let mixed = all.with_rows(Some(&names)).expect(what);
    let options = GenerateOptions {
        eos: Vec::new(),
        num_return_sequences: 2,
        decoding: Decoding::Beam(BeamSearch::default()),
        ..options(Decoding::Sample(Sampling::default()))
    };
    let four = [ROWS[0], ROWS[1], ROWS[2], ROWS[0]].map(<[u32]>::to_vec);
    let together = crate::generate_sequences(&mixed, &four, &options).expect(what);
    for (row, prompt) in four.iter().enumerate() {
        let alone = with(base, &Vec::from_iter(names[row / 2]));
        let prompt = std::slice::from_ref(prompt);
        let alone = crate::generate_sequences(&alone, prompt, &options).expect(what);
        for (found, expected) in together[row].iter().zip(&alone[0]) {
            assert_eq!(found.tokens, expected.tokens, "{what}, row {row}");
        }
    }
    match generate(&mixed, &four[..3], &options) {
        Err(GenerateError::Request { faults }) => {
            let (rows, prompts) = (2, 3);
            assert_eq!(faults, [RequestFault::Rows { rows, prompts }]);
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn prompts_of_decoders_are_continued_as_alone() {
    let families = ["llama", "gpt2", "mistral", "gemma2"];
    for (name, base) in decoders() {
        if families.contains(&name) {
            prompts_are_continued_as_alone(name, &base);
        }
    }
}

#[test]
fn prompts_of_t5_are_continued_as_alone() {
    prompts_are_continued_as_alone("t5", &t5::model(t5::config()));
}
