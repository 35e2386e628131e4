/// Pearson's correlation `cov(x, y) / (std(x) std(y))`, as `scipy.stats.pearsonr`. NaN where either is constant.
///
/// # Panics
/// If there are more or fewer of one than of the other.
pub fn pearson(x: &[f64], y: &[f64]) -> f64 {
    assert_eq!(x.len(), y.len(), "one value for each that is wanted");
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let (mean_x, mean_y) = (mean(x), mean(y));
    let sum = |of: &dyn Fn(f64, f64) -> f64| -> f64 {
        let pairs = x.iter().zip(y);
        pairs.map(|(x, y)| of(x - mean_x, y - mean_y)).sum()
    };
    let (xy, xx, yy) = (sum(&|x, y| x * y), sum(&|x, _| x * x), sum(&|_, y| y * y));
    xy / (xx.sqrt() * yy.sqrt())
}

/// Spearman's correlation: [Pearson's](pearson) of the ranks, equal values sharing the mean of theirs, as
/// `scipy.stats.spearmanr`. NaN where either is constant.
///
/// # Panics
/// If there are more or fewer of one than of the other.
pub fn spearman(x: &[f64], y: &[f64]) -> f64 {
    pearson(&ranks(x), &ranks(y))
}

/// The rank of each value, from 1.
fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|a, b| values[*a].total_cmp(&values[*b]));
    let mut ranks = vec![0.0; values.len()];
    let mut first = 0;
    for equal in order.chunk_by(|a, b| values[*a] == values[*b]) {
        // The mean of first + 1, ..., first + len.
        let rank = first as f64 + (equal.len() + 1) as f64 / 2.0;
        for index in equal {
            ranks[*index] = rank;
        }
        first += equal.len();
    }
    ranks
}
