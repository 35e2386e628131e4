//! What the invariants share.

use burn::module::Module;
use burn::tensor::DType;
use burn_lora::adapter::{AdapterError, DEFAULT_NAME, LoraInit, attach};
use burn_lora_tests::{Parameters, Subject, largest_difference};

/// Two f32 computations of the same function, on outputs of up to 10.
pub const SAME: f32 = 1e-4;
/// What counts as a change of the output.
pub const CHANGED: f32 = 1e-2;

/// How far two ways to compute the same may be apart: over an f32 base this, over one in bf16 what so many roundings in a row, of 2^-8
/// each, can make of the largest value.
pub fn bound(dtype: DType, roundings: usize, expected: &[f32], f32: f32) -> f32 {
    let largest = expected.iter().fold(0.0_f32, |most, x| most.max(x.abs()));
    match dtype {
        DType::F32 => f32,
        _ => roundings as f32 * 2.0_f32.powi(-8) * largest,
    }
}

/// [`bound`] for the outputs of a subject.
pub fn apart<M>(subject: &Subject<M>, expected: &[f32], f32: f32) -> f32 {
    bound(subject.dtype, subject.roundings, expected, f32)
}

/// The subject with an adapter that changes the output at once.
pub fn changed<M: Module>(subject: &Subject<M>) -> M {
    let config = subject.config().with_init(LoraInit::Random);
    attach(subject.base.clone(), DEFAULT_NAME, &config).unwrap()
}

/// The adapter parameters among a module's.
pub fn is_adapter(path: &str) -> bool {
    path.contains(".lora.")
}

/// The parameters that are no adapter's.
pub fn base_of(parameters: Parameters) -> Parameters {
    parameters
        .into_iter()
        .filter(|(path, _)| !is_adapter(path))
        .collect()
}

pub fn adapters_of(parameters: Parameters) -> Parameters {
    parameters
        .into_iter()
        .filter(|(path, _)| is_adapter(path))
        .collect()
}

#[track_caller]
pub fn assert_same_parameters(what: &str, actual: &Parameters, expected: &Parameters) {
    assert_eq!(
        actual.keys().collect::<Vec<_>>(),
        expected.keys().collect::<Vec<_>>(),
        "{what}: paths"
    );
    for (path, expected) in expected {
        assert!(actual[path] == *expected, "{what}: {path} differs");
    }
}

#[track_caller]
pub fn assert_changed(what: &str, left: &[f32], right: &[f32]) {
    let gap = largest_difference(left, right);
    assert!(gap > CHANGED, "{what}: differs by {gap:e} only");
}

pub fn refusal<T>(result: Result<T, AdapterError>) -> AdapterError {
    match result {
        Ok(_) => panic!("not refused"),
        Err(error) => error,
    }
}
