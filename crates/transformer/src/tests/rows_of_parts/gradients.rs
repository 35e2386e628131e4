//! What is trained of a batch of rows with adapters of their own.

use super::super::virtual_tokens::Seen;
use super::*;

/// Each row's own set has the gradient that it has alone, and no other set has any.
fn gradients_are_the_rows_own<M: WithRows>(what: &str, base: &M, says: &Says<M>) {
    let all = with(base, &every_name());
    let of = |model: &M, rows: &[&[u32]]| {
        let said = says(model, rows).into_iter();
        let sums = said.map(|said| said.powi_scalar(2).sum());
        let loss = sums.reduce(|a, b| a + b).expect("rows") * 1e-2;
        Seen::of(model, &loss.backward())
    };
    // No name twice: two rows of one name have one gradient together.
    for names in &batches()[..4] {
        let mixed = all.clone().with_rows(Some(names)).expect(what);
        let mut expected = Vec::new();
        for (row, name) in names.iter().enumerate() {
            if name.is_some() {
                let alone = with(base, &Vec::from_iter(*name));
                expected.extend(of(&alone, &ROWS[row..=row]));
            }
        }
        let mut found = of(&mixed, &ROWS);
        let order = |a: &(String, TensorData), b: &(String, TensorData)| a.0.cmp(&b.0);
        found.sort_by(order);
        expected.sort_by(order);
        let paths = |of: &[(String, TensorData)]| -> Vec<String> {
            of.iter().map(|(path, _)| path.clone()).collect()
        };
        assert_eq!(paths(&found), paths(&expected), "{what}, {names:?}");
        assert!(!found.is_empty(), "{what}, {names:?}");
        for ((path, found), (_, expected)) in found.iter().zip(&expected) {
            let (found, expected): (Vec<f32>, Vec<f32>) =
                (found.iter().collect(), expected.iter().collect());
            let largest = expected.iter().fold(1.0_f32, |most, x| most.max(x.abs()));
            for (found, expected) in found.iter().zip(&expected) {
                let apart = (found - expected).abs();
                assert!(
                    apart <= 1e-5 * largest,
                    "{what}, {names:?}, {path}: {apart}"
                );
            }
        }
    }
}

#[test]
fn gradients_reach_the_own_sets_of_rows_only() {
    let device = Device::flex().autodiff();
    for config in [DecoderConfig::from(llama()), gpt2().into()] {
        let base = Decoder::init(config, &device, 3).expect("valid");
        gradients_are_the_rows_own("decoder", &base, &decoder_says);
        let lean = base.with_recompute(usize::MAX);
        gradients_are_the_rows_own("decoder, recomputed", &lean, &decoder_says);
    }
    let config = EncoderConfig::from(super::encoders::config());
    let base = Encoder::init(config, &device, 3).expect("valid");
    gradients_are_the_rows_own("encoder", &base, &encoder_says);
    let base = T5::init(t5::config(), &device, 3).expect("valid");
    gradients_are_the_rows_own("t5", &base, &t5_says);
}
