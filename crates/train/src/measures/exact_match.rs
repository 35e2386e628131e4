/// The share of texts that are as wanted but for white space around them. NaN of nothing.
pub fn exact_match(pairs: &[[String; 2]]) -> f64 {
    let exact = pairs
        .iter()
        .filter(|[made, wanted]| made.trim() == wanted.trim())
        .count();
    exact as f64 / pairs.len() as f64
}
