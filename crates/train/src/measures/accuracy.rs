/// The share of classes that are right: scikit-learn's `accuracy_score`. NaN of nothing.
///
/// # Panics
/// If there are more or fewer of one than of the other.
pub fn accuracy(made: &[usize], wanted: &[usize]) -> f64 {
    assert_eq!(
        made.len(),
        wanted.len(),
        "one answer for each that is wanted"
    );
    let right = made.iter().zip(wanted).filter(|(m, w)| m == w).count();
    right as f64 / wanted.len() as f64
}
