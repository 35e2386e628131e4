/// What PEFT puts before every path of the base model.
pub(super) const PREFIX: &str = "base_model.model.";

/// The keys of what the layers of a VeRA adapter share, in a file that has it.
pub(crate) const SHARED: [&str; 2] = ["base_model.vera_A", "base_model.vera_B"];

/// The key of a tensor of a layer.
pub(crate) fn layer_key(module_path: &str, name: &str) -> String {
    format!("{PREFIX}{module_path}.{name}")
}

/// The key of a parameter that is saved as a whole.
pub(crate) fn saved_key(path: &str) -> String {
    format!("{PREFIX}{path}")
}

/// Row-major `[rows, columns]` to row-major `[columns, rows]`.
pub(super) fn transpose(values: &[f32], [rows, columns]: [usize; 2]) -> Vec<f32> {
    let mut transposed = Vec::with_capacity(values.len());
    for column in 0..columns {
        transposed.extend((0..rows).map(|row| values[row * columns + column]));
    }
    transposed
}
