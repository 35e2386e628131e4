use burn::module::Param;
use burn::nn::Linear;
use burn::tensor::Tensor;
use burn_lora_adapter::project;

use super::scope::Scope;
use super::spec::{QkvLayout, Spec};
use crate::named::{Named, Siblings, unnamed_module};

unnamed_module!(Qkv { linears, added } with { layout, n_heads });

/// What makes queries, keys and values: three linear layers or one.
#[derive(Debug, Clone)]
pub struct Qkv {
    /// `[hidden, hidden]` each, in the order of query, key and value; or one of `[hidden, 3 * hidden]`.
    pub linears: Siblings<Named<Linear>>,
    /// What is added to all queries and to all values, where it does not belong to the linear layers. `[hidden]`
    pub added: Option<Siblings<Named<Param<Tensor<1>>>>>,
    layout: QkvLayout,
    n_heads: usize,
}

impl Qkv {
    pub(crate) fn build(spec: &Spec, scope: &mut Scope<'_, '_>) -> Self {
        let d = spec.hidden_size;
        let width = if spec.qkv == QkvLayout::Separate {
            d
        } else {
            3 * d
        };
        let by_head = spec.qkv == QkvLayout::ByHead;
        let bias = spec.attention_bias && !by_head;
        let linears = spec.names.qkv.iter();
        let linears = linears.map(|name| scope.linear(*name, [d, width], bias));
        Self {
            linears: Siblings(linears.collect()),
            added: by_head.then(|| {
                // DeBERTa's names: no other family holds them apart.
                let names = ["attention.self.q_bias", "attention.self.v_bias"];
                Siblings(names.map(|name| scope.vector(name, d)).into())
            }),
            layout: spec.qkv,
            n_heads: spec.n_heads,
        }
    }

    /// # Shapes
    ///
    /// - x: `[batch, seq, hidden]`
    /// - output: `[batch, seq, heads, d_head]` each
    pub(crate) fn forward(&self, x: Tensor<3>) -> [Tensor<4>; 3] {
        let [batch, seq, d] = x.dims();
        let (heads, d_head) = (self.n_heads, d / self.n_heads);
        let one = |x: Tensor<3>| x.reshape([batch, seq, heads, d_head]);
        let part = |x: &Tensor<5>, dim: usize, at: usize| -> Tensor<4> {
            x.clone().narrow(dim, at, 1).squeeze_dim(dim)
        };
        let [q, k, v] = match self.layout {
            QkvLayout::Separate => [0, 1, 2].map(|at| one(project(&self.linears[at], x.clone()))),
            QkvLayout::Fused => {
                let x = project(&self.linears[0], x).reshape([batch, seq, 3, heads, d_head]);
                [0, 1, 2].map(|at| part(&x, 2, at))
            }
            QkvLayout::ByHead => {
                let x = project(&self.linears[0], x).reshape([batch, seq, heads, 3, d_head]);
                [0, 1, 2].map(|at| part(&x, 3, at))
            }
        };
        match &self.added {
            Some(added) => {
                let row = |at: usize| -> Tensor<4> {
                    let bias = added[at].val();
                    bias.reshape([1, 1, heads, d_head])
                };
                [q + row(0), k, v + row(1)]
            }
            None => [q, k, v],
        }
    }

    pub(crate) fn n_heads(&self) -> usize {
        self.n_heads
    }
}
