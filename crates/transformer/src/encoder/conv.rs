use burn::module::{Module, Param};
use burn::tensor::ops::ConvOptions;
use burn::tensor::{Tensor, module::conv1d};

use super::scope::{Bias, Scope};
use super::spec::{ConvSpec, Spec};
use crate::activation::Activation;
use crate::named::{Named, unnamed_module};
use crate::norm::LayerNorm;

/// `norm(y + activation(conv(x)))`, x being the embeddings and y what the first block makes of them (DeBERTa-v2).
#[derive(Debug, Clone)]
pub struct ConvLayer {
    /// Over neighbouring tokens.
    pub kernel: Named<Kernel>,
    /// `[hidden]`, added.
    pub bias: Named<Bias>,
    /// Over the sum.
    pub norm: Named<LayerNorm>,
    groups: usize,
    activation: Activation,
}

unnamed_module!(ConvLayer { kernel, bias, norm } with { groups, activation });

/// The weights of a convolution.
#[derive(Module, Debug)]
pub struct Kernel {
    /// `[hidden, hidden / groups, width]`
    pub weight: Param<Tensor<3>>,
}

impl ConvLayer {
    pub(crate) fn build(spec: &Spec, scope: &mut Scope<'_, '_>) -> Option<Named<Self>> {
        let (d, conv) = (spec.hidden_size, spec.conv?);
        let ConvSpec {
            name,
            width,
            groups,
            activation,
        } = conv;
        Some(scope.enter(name, |scope| Self {
            kernel: scope.enter("conv", |scope| Kernel {
                weight: scope.kernel([d, d / groups, width]),
            }),
            bias: scope.bias("conv", d),
            norm: scope.norm("LayerNorm", d, spec.norm),
            groups,
            activation,
        }))
    }

    /// # Shapes
    ///
    /// - x, y, output: `[batch, seq, hidden]`, x being 0 at padding
    pub(crate) fn forward(&self, x: Tensor<3>, y: Tensor<3>) -> Tensor<3> {
        let weight = self.kernel.weight.val();
        let width = weight.dims()[2];
        let options = ConvOptions::new([1], [(width - 1) / 2], [1], self.groups);
        let channels = x.swap_dims(1, 2); // [batch, hidden, seq]
        let mixed = conv1d(channels, weight, Some(self.bias.bias.val()), options);
        let mixed = self.activation.apply(mixed.swap_dims(1, 2)); // [batch, seq, hidden]
        self.norm.forward(y + mixed)
    }
}
