use crate::error::LinalgError;
use crate::matrix::Matrix;
use crate::svd::svd;

/// The principal components of rows that come in batches, of which none is kept (Ross et al., 2008, "Incremental Learning
/// for Robust Visual Tracking").
///
/// A batch is stacked under the components so far, weighted by their singular values, and a row that accounts for the shift
/// of the mean; the SVD of that is the new state. While no more than `components` directions vary, nothing is lost.
#[derive(Clone, Debug)]
pub struct IncrementalSvd {
    components: usize,
    count: usize,
    mean: Vec<f64>,
    /// The sum of the squared distances from the mean, of all columns.
    spread: f64,
    s: Vec<f64>,
    /// `[k, columns]`
    v: Option<Matrix>,
}

impl IncrementalSvd {
    /// Follows this many components.
    pub fn new(components: usize) -> Self {
        Self {
            components,
            count: 0,
            mean: Vec::new(),
            spread: 0.0,
            s: Vec::new(),
            v: None,
        }
    }

    /// The number of rows so far.
    pub fn count(&self) -> usize {
        self.count
    }

    /// The components found, one a row, the strongest first; fewer than asked for while rows or columns are.
    pub fn components(&self) -> Option<&Matrix> {
        self.v.as_ref()
    }

    /// The singular values of the components.
    pub fn singular_values(&self) -> &[f64] {
        &self.s
    }

    /// What share of the variance of all columns each component accounts for.
    pub fn explained(&self) -> Vec<f64> {
        let share = |s: &f64| match self.spread > 0.0 {
            true => s * s / self.spread,
            false => 0.0,
        };
        self.s.iter().map(share).collect()
    }

    /// Takes a batch, a row for each example. An empty one changes nothing.
    ///
    /// # Errors
    ///
    /// [`LinalgError::NotFinite`], and what [`svd`] says; the state is as before.
    ///
    /// # Panics
    ///
    /// If the batch is not as wide as the ones before.
    pub fn add(&mut self, rows: &Matrix) -> Result<(), LinalgError> {
        rows.check()?;
        let [batch, columns] = rows.shape();
        if batch == 0 {
            return Ok(());
        }
        let batch_count = batch as f64;
        let column_mean = |column| (0..batch).map(|row| rows.get(row, column)).sum::<f64>();
        let batch_mean: Vec<f64> = (0..columns)
            .map(|column| column_mean(column) / batch_count)
            .collect();
        let centered = Matrix::from_fn(batch, columns, |row, column| {
            rows.get(row, column) - batch_mean[column]
        });
        let mut spread = self.spread + centered.norm().powi(2);
        let (mut stacked, mut mean) = (centered, batch_mean.clone());
        if let Some(v) = &self.v {
            assert_eq!(v.columns(), columns, "the width of a batch");
            let (old, total) = (self.count as f64, self.count as f64 + batch_count);
            let weight = (old * batch_count / total).sqrt();
            let shift = Matrix::from_fn(1, columns, |_, column| {
                weight * (self.mean[column] - batch_mean[column])
            });
            spread += shift.norm().powi(2);
            stacked = v.scaled_rows(&self.s).above(&stacked).above(&shift);
            for (mean, old_mean) in mean.iter_mut().zip(&self.mean) {
                *mean = (old_mean * old + *mean * batch_count) / total;
            }
        }
        let found = svd(&stacked)?.truncated(self.components);
        *self = Self {
            components: self.components,
            count: self.count + batch,
            mean,
            spread,
            s: found.s,
            v: Some(found.v.transpose()),
        };
        Ok(())
    }
}
