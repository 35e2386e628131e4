use std::collections::BTreeSet;

/// `F1 = 2 TP / (2 TP + FP + FN)` of the class 1, the harmonic mean of its precision and recall: scikit-learn's
/// `f1_score`. 0 where the class is neither made nor wanted.
///
/// # Panics
/// If there are more or fewer of one than of the other.
pub fn binary_f1(made: &[usize], wanted: &[usize]) -> f64 {
    f1_of(1, made, wanted)
}

/// The mean of the F1 of every class that is made or wanted: scikit-learn's `f1_score(average="macro")`. NaN of nothing.
///
/// # Panics
/// If there are more or fewer of one than of the other.
pub fn macro_f1(made: &[usize], wanted: &[usize]) -> f64 {
    let classes: BTreeSet<usize> = made.iter().chain(wanted).copied().collect();
    let sum: f64 = classes
        .iter()
        .map(|class| f1_of(*class, made, wanted))
        .sum();
    sum / classes.len() as f64
}

fn f1_of(class: usize, made: &[usize], wanted: &[usize]) -> f64 {
    assert_eq!(
        made.len(),
        wanted.len(),
        "one answer for each that is wanted"
    );
    let count = |of: fn(bool, bool) -> bool| {
        let pairs = made.iter().zip(wanted);
        pairs
            .filter(|(m, w)| of(**m == class, **w == class))
            .count() as f64
    };
    let right = count(|made, wanted| made && wanted);
    let wrong = count(|made, wanted| made != wanted);
    match right + wrong > 0.0 {
        true => 2.0 * right / (2.0 * right + wrong),
        false => 0.0,
    }
}
