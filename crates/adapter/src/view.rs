use burn::tensor::{Shape, Tensor};

/// What a parameter belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The weight of a linear layer, `[d_in, d_out]`.
    Linear,
    /// The rows of an embedding, `[rows, d_model]`.
    Embedding,
    /// The kernel of a convolution, `[channels_out, channels_in, ...]`.
    Conv,
    /// The bias of a linear layer, `[d_out]`.
    Bias,
    /// Any other vector: a norm's weight, a convolution's bias.
    Vector,
    /// A matrix of a module that is none of the above.
    Other,
}

/// How a parameter is seen as the matrix that methods work on.
///
/// A linear weight `[d_in, d_out]` and an embedding `[rows, d_model]` are it already. The kernel of a convolution is
/// `[channels_in x kernel, channels_out]`, the transpose of its rows as PyTorch flattens them, and a vector is a row.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct View {
    pub(crate) kind: Kind,
    pub(crate) shape: Vec<usize>,
}

impl View {
    /// Rows and columns of the matrix.
    pub(crate) fn dims(&self) -> [usize; 2] {
        match self.shape.as_slice() {
            [] => [1, 1],
            [n] => [1, *n],
            [rows, columns] => [*rows, *columns],
            [out, rest @ ..] => [rest.iter().product(), *out],
        }
    }

    /// Size of what one channel of a convolution's input has in the matrix; 1 elsewhere.
    pub(crate) fn kernel(&self) -> usize {
        self.shape.iter().skip(2).product()
    }

    /// Channels of a convolution's input that one output sees; `d_in` elsewhere.
    pub(crate) fn channels(&self) -> usize {
        self.dims()[0] / self.kernel().max(1)
    }

    /// The kernel's own dimensions.
    pub(crate) fn kernel_shape(&self) -> &[usize] {
        self.shape.get(2..).unwrap_or_default()
    }

    /// The shape of a file's tensor that is `[rows, d_in]` for a linear layer.
    pub(crate) fn input_shape(&self, rows: usize) -> Vec<usize> {
        match self.shape.as_slice() {
            [_, rest @ ..] if self.shape.len() > 2 => [&[rows], rest].concat(),
            _ => vec![rows, self.dims()[0]],
        }
    }

    /// The shape of a file's tensor that is `[d_out, columns]` for a linear layer.
    pub(crate) fn output_shape(&self, columns: usize) -> Vec<usize> {
        let mut shape = vec![self.dims()[1], columns];
        shape.resize(self.shape.len().max(2), 1);
        shape
    }

    /// The parameter as a matrix.
    pub(crate) fn matrix<const D: usize>(&self, parameter: Tensor<D>) -> Tensor<2> {
        let [rows, columns] = self.dims();
        match D > 2 {
            true => parameter.reshape([columns, rows]).transpose(),
            false => parameter.reshape([rows, columns]),
        }
    }

    /// The matrix as the parameter.
    pub(crate) fn restore<const D: usize>(&self, matrix: Tensor<2>) -> Tensor<D> {
        let shape = Shape::from(self.shape.clone());
        match D > 2 {
            true => matrix.transpose().reshape(shape),
            false => matrix.reshape(shape),
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Distribution};

    use super::*;

    #[test]
    fn a_matrix_is_restored_and_has_the_shapes_of_a_file() {
        let view = View {
            kind: Kind::Conv,
            shape: vec![4, 3, 2, 5],
        };
        assert_eq!(view.dims(), [30, 4]);
        assert_eq!(view.kernel(), 10);
        assert_eq!(view.input_shape(7), [7, 3, 2, 5]);
        assert_eq!(view.output_shape(7), [4, 7, 1, 1]);
        let kernel = Tensor::<4>::random([4, 3, 2, 5], Distribution::Default, &Device::flex());
        let again: Tensor<4> = view.restore(view.matrix(kernel.clone()));
        assert_eq!(again.into_data(), kernel.into_data());
    }
}
