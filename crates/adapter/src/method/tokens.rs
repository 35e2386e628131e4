use burn::module::{Module, Param};
use burn::tensor::{DType, IndexingUpdateOp, Int, Tensor, TensorData};

use super::{AdapterMethod, add_dense};
use crate::lora::cast;

/// New values of some rows of an embedding (PEFT's trainable tokens): for tokens that were added, or whose meaning changes.
///
/// `W'[i] = v[i]` for the chosen rows, W elsewhere. The rows are replaced and not added to, so that it does not matter what
/// a resized embedding was filled with. A head that is tied to the embedding sees the new rows, too.
#[derive(Module, Debug)]
pub struct Tokens {
    /// The values, `[tokens, d_model]`; start as the base's rows.
    pub rows: Param<Tensor<2>>,
    /// The rows of the embedding that they stand for.
    #[module(skip)]
    pub indices: Vec<usize>,
}

impl AdapterMethod for Tokens {
    fn parameters(&self) -> Vec<&Param<Tensor<2>>> {
        vec![&self.rows]
    }

    fn compose(&self, weight: Tensor<2>, _base: &Tensor<2>) -> Tensor<2> {
        let device = weight.device().without_autodiff();
        let [vocab, _] = weight.dims();
        let mut kept = vec![1.0_f32; vocab];
        for index in &self.indices {
            kept[*index] = 0.0;
        }
        let kept = TensorData::new(kept, [vocab, 1]);
        let kept = Tensor::from_data(kept, (&weight.device(), DType::F32));
        let indices: Vec<i32> = self.indices.iter().map(|index| *index as i32).collect();
        let indices = TensorData::new(indices, [self.indices.len()]);
        let indices = Tensor::<1, Int>::from_data(indices, &device);
        let zeros = weight.zeros_like();
        let rows = cast(self.rows.val(), DType::F32);
        // A product and a sum, and no assignment, so that gradients reach the rows and nothing else.
        let placed = zeros.select_assign(0, indices, rows, IndexingUpdateOp::Add);
        weight * kept + placed
    }

    fn apply(&self, y: Tensor<2>, x: Tensor<2>, base: &Tensor<2>) -> Tensor<2> {
        let base = cast(base.clone(), DType::F32);
        let delta = self.compose(base.clone(), &base) - base.clone();
        add_dense(y, x, delta)
    }
}
