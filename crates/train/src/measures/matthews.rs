use std::collections::BTreeMap;

/// The correlation of the classes made with those wanted, of any number of classes: `R_K` (Gorodkin 2004,
/// doi:10.1016/j.compbiolchem.2004.09.006), which of two classes is Matthews' coefficient (1975,
/// doi:10.1016/0005-2795(75)90109-9).
///
/// With `s` answers, `c` right ones, and each class `k` made `p_k` and wanted `t_k` times:
/// `(c s - sum p_k t_k) / sqrt((s^2 - sum p_k^2) (s^2 - sum t_k^2))`. 0 where one class is always made or always wanted, as
/// scikit-learn's `matthews_corrcoef`.
///
/// # Panics
/// If there are more or fewer of one than of the other.
pub fn matthews(made: &[usize], wanted: &[usize]) -> f64 {
    assert_eq!(
        made.len(),
        wanted.len(),
        "one answer for each that is wanted"
    );
    let mut counts: BTreeMap<usize, [f64; 2]> = BTreeMap::new();
    for class in made {
        counts.entry(*class).or_default()[0] += 1.0;
    }
    for class in wanted {
        counts.entry(*class).or_default()[1] += 1.0;
    }
    let all = wanted.len() as f64;
    let right = made.iter().zip(wanted).filter(|(m, w)| m == w).count() as f64;
    let sum = |of: fn(&[f64; 2]) -> f64| counts.values().map(of).sum::<f64>();
    let covariance = right * all - sum(|[p, t]| p * t);
    let spread = (all * all - sum(|[p, _]| p * p)) * (all * all - sum(|[_, t]| t * t));
    match spread > 0.0 {
        true => covariance / spread.sqrt(),
        false => 0.0,
    }
}
