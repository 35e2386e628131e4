use burn::tensor::{Distribution, Tensor};

/// What is dropped of a change that is a matrix, in training: single outputs, and the whole of it.
///
/// PEFT's `rank_dropout` (which drops outputs, whatever its name says), `rank_dropout_scale` and `module_dropout`, of
/// LyCORIS. Drawn by the device, which a run seeds at every step.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct DeltaDropout {
    /// Probability that an output is dropped.
    pub(crate) outputs: f64,
    /// Whether the outputs that are left are scaled up by the share of them that is.
    pub(crate) rescales: bool,
    /// Probability that the whole change is.
    pub(crate) whole: f64,
}

impl DeltaDropout {
    pub(crate) fn is_active(&self) -> bool {
        self.outputs > 0.0 || self.whole > 0.0
    }

    /// # Shapes
    /// - delta, output: `[d_in, d_out]`
    pub(crate) fn apply(&self, delta: Tensor<2>) -> Tensor<2> {
        let [_, d_out] = delta.dims();
        let drawn = |count: usize, probability: f64| {
            let like = delta.clone().detach().slice([0..1, 0..count]);
            like.random_like(Distribution::Bernoulli(1.0 - probability)) // [1, count]
        };
        let mut kept: Option<Tensor<2>> = None;
        if self.outputs > 0.0 {
            let mut outputs = drawn(d_out, self.outputs);
            if self.rescales {
                // Where none is left, PEFT divides 0 by 0.
                let share = outputs.clone().mean_dim(1).clamp_min(1.0 / d_out as f64); // [1, 1]
                outputs = outputs / share;
            }
            kept = Some(outputs);
        }
        if self.whole > 0.0 {
            let whole = drawn(1, self.whole);
            kept = Some(match kept {
                Some(outputs) => outputs * whole,
                None => whole,
            });
        }
        match kept {
            Some(kept) => delta * kept,
            None => delta,
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    /// The columns of what is left of a change that is 1 everywhere.
    fn left(dropout: &DeltaDropout, d_out: usize) -> Vec<f32> {
        let ones = Tensor::<2>::ones([3, d_out], &Device::flex());
        let values: Vec<f32> = dropout.apply(ones).into_data().iter().collect();
        let (first, rest) = values.split_at(d_out);
        assert_eq!(
            [first, first].concat(),
            rest,
            "outputs are dropped as a whole"
        );
        first.to_vec()
    }

    #[test]
    fn outputs_are_dropped_and_scaled_by_the_share_that_is_left() {
        Device::flex().seed(5);
        let plain = DeltaDropout {
            outputs: 0.25,
            ..DeltaDropout::default()
        };
        let columns = left(&plain, 4000);
        let kept = columns.iter().filter(|value| **value == 1.0).count();
        assert!(columns.iter().all(|value| [0.0, 1.0].contains(value)));
        assert!((2850..3150).contains(&kept), "{kept} of 4000 are kept");

        let scaled = DeltaDropout {
            rescales: true,
            ..plain
        };
        let columns = left(&scaled, 4000);
        let kept = columns.iter().filter(|value| **value != 0.0).count();
        let expected = 4000.0 / kept as f32;
        let of_kept = columns.iter().filter(|value| **value != 0.0);
        assert!(
            of_kept
                .into_iter()
                .all(|value| (value - expected).abs() < 1e-5)
        );
        let mean = columns.iter().sum::<f32>() / 4000.0;
        assert!((mean - 1.0).abs() < 1e-3, "the mean is {mean}");
    }

    #[test]
    fn where_no_output_is_left_the_change_is_0() {
        let almost_all = DeltaDropout {
            outputs: 1.0 - 1e-12,
            rescales: true,
            whole: 0.0,
        };
        assert_eq!(left(&almost_all, 3), [0.0; 3]);
    }

    #[test]
    fn the_whole_is_dropped_as_often_as_asked_and_never_scaled() {
        Device::flex().seed(6);
        let dropout = DeltaDropout {
            whole: 0.3,
            ..DeltaDropout::default()
        };
        let runs = (0..400).map(|_| left(&dropout, 5));
        let kept = runs.filter(|columns| {
            let first = columns[0];
            assert_eq!(*columns, [first; 5]);
            assert!([0.0, 1.0].contains(&first));
            first == 1.0
        });
        let kept = kept.count();
        assert!((240..320).contains(&kept), "{kept} of 400 are kept");
    }
}
