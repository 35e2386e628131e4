use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::matrix::Matrix;

/// Seeded standard normal numbers, the same on every machine, by the Box-Muller transform.
#[derive(Clone, Debug)]
pub struct Normal(ChaCha8Rng);

impl Normal {
    /// The numbers of a seed; each stream has its own.
    pub fn new(seed: u64, stream: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(stream);
        Self(rng)
    }

    /// The next number.
    pub fn draw(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.0.random::<f64>()).ln()).sqrt();
        let angle = std::f64::consts::TAU * self.0.random::<f64>();
        radius * angle.cos()
    }

    /// A matrix of them.
    pub fn matrix(&mut self, rows: usize, columns: usize) -> Matrix {
        Matrix::from_fn(rows, columns, |_, _| self.draw())
    }
}
