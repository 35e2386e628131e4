use burn::nn::Linear;
use burn::tensor::Tensor;
use burn_lora_adapter::project;
use burn_lora_kernels::attention;

use super::disentangled::{PositionLinears, RelativeRows};
use super::qkv::Qkv;
use super::scope::Scope;
use super::spec::{NormOrder, Spec};
use super::view::View;
use crate::activation::Activation;
use crate::bottleneck::BlockBottlenecks;
use crate::named::{Named, unnamed_module};
use crate::norm::LayerNorm;
use crate::virtual_tokens::LayerPrefix;

/// One block: attention, then the inner layer, each added to what it started from, and a norm behind or in front of each.
#[derive(Debug, Clone)]
pub struct EncoderLayer {
    /// Query, key and value.
    pub qkv: Qkv,
    /// What projects relative positions, where they have projections of their own.
    pub positions: Option<PositionLinears>,
    /// `[hidden, hidden]`
    pub attention_output: Named<Linear>,
    /// The norm of attention; the first block of a family may lack it.
    pub attention_norm: Option<Named<LayerNorm>>,
    /// `[hidden, intermediate]`, twice as wide where it is gated.
    pub inner: Named<Linear>,
    /// `[intermediate, hidden]`
    pub outer: Named<Linear>,
    /// The norm of the inner layer.
    pub mlp_norm: Named<LayerNorm>,
    bottlenecks: BlockBottlenecks,
    order: NormOrder,
    activation: Activation,
    gated: bool,
    view: usize,
}

unnamed_module!(EncoderLayer {
    qkv, positions, attention_output, attention_norm, inner, outer, mlp_norm,
    bottlenecks
} with { order, activation, gated, view });

impl EncoderLayer {
    pub(crate) fn build(spec: &Spec, index: usize, scope: &mut Scope<'_, '_>) -> Self {
        let (names, d, inner) = (&spec.names, spec.hidden_size, spec.intermediate_size);
        let widened = if spec.gated { 2 * inner } else { inner };
        let has_norm = spec.order == NormOrder::Post || index > 0;
        Self {
            qkv: Qkv::build(spec, scope),
            positions: PositionLinears::build(spec, scope),
            attention_output: scope.linear(names.attention_output, [d, d], spec.attention_bias),
            attention_norm: has_norm.then(|| scope.norm(names.attention_norm, d, spec.norm)),
            inner: scope.linear(names.inner, [d, widened], spec.mlp_bias),
            outer: scope.linear(names.outer, [inner, d], spec.mlp_bias),
            mlp_norm: scope.norm(names.mlp_norm, d, spec.norm),
            bottlenecks: BlockBottlenecks::default(),
            order: spec.order,
            activation: spec.activation,
            gated: spec.gated,
            view: spec.view_of_layer.get(index).copied().unwrap_or(0),
        }
    }

    pub(crate) fn bottlenecks(&self) -> &BlockBottlenecks {
        &self.bottlenecks
    }

    pub(crate) fn map_bottlenecks(
        self,
        change: impl FnOnce(BlockBottlenecks) -> BlockBottlenecks,
    ) -> Self {
        let bottlenecks = change(self.bottlenecks);
        Self {
            bottlenecks,
            ..self
        }
    }

    /// # Shapes
    ///
    /// - x, output: `[batch, seq, hidden]`
    pub(crate) fn forward(
        &self,
        x: Tensor<3>,
        views: &[View],
        relative: Option<&RelativeRows>,
        prefix: Option<&LayerPrefix>,
    ) -> Tensor<3> {
        let attend = |x| {
            let change = self.attend(x, &views[self.view], relative, prefix);
            self.bottlenecks.after_attention(change)
        };
        let feed = |x| self.bottlenecks.at_inner(x, |x| self.feed(x));
        match self.order {
            NormOrder::Post => {
                let x = self.normed(attend(x.clone()) + x);
                self.mlp_norm.forward(feed(x.clone()) + x)
            }
            NormOrder::Pre => {
                let x = attend(self.normed(x.clone())) + x;
                feed(self.mlp_norm.forward(x.clone())) + x
            }
        }
    }

    fn normed(&self, x: Tensor<3>) -> Tensor<3> {
        match &self.attention_norm {
            Some(norm) => norm.forward(x),
            None => x,
        }
    }

    fn attend(
        &self,
        x: Tensor<3>,
        view: &View,
        relative: Option<&RelativeRows>,
        prefix: Option<&LayerPrefix>,
    ) -> Tensor<3> {
        let [batch, seq, d] = x.dims();
        let [q, k, v] = self.qkv.forward(x); // [batch, seq, heads, d_head] each
        let (q, k) = match &view.rope {
            Some(rope) => (rope.apply(q), rope.apply(k)),
            None => (q, k),
        };
        let [q, k, v] = [q, k, v].map(|x| x.swap_dims(1, 2)); // [batch, heads, seq, d_head]
        let (k, v) = match prefix {
            Some(prefix) => prefix.put(k, v),
            None => (k, v),
        };
        let y = match relative {
            Some(rows) => {
                let places = rows.project(&self.qkv, self.positions.as_ref(), batch);
                rows.attention(q, k, v, places)
            }
            None => attention(q, k, v, &view.mask),
        };
        let y = y.swap_dims(1, 2).reshape([batch, seq, d]); // [batch, seq, hidden]
        project(&self.attention_output, y)
    }

    fn feed(&self, x: Tensor<3>) -> Tensor<3> {
        let x = project(&self.inner, x);
        let x = match self.gated {
            true => {
                let halves = x.chunk(2, 2); // [batch, seq, intermediate] each
                let [input, gate] = [0, 1].map(|half| halves[half].clone());
                self.activation.apply(input) * gate
            }
            false => self.activation.apply(x),
        };
        project(&self.outer, x)
    }
}
