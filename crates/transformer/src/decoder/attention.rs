use burn::module::Content;
use burn::nn::Linear;
use burn::tensor::Tensor;
use burn_lora_adapter::{project, project_together};
use burn_lora_kernels::{AttentionMask, RopeTables, Scores, attention_with, split_heads};

use super::norm::Norm;
use super::plan::{AttentionPlan, NormPlan, QkvForm};
use super::scope::Scope;
use crate::cache::LayerWriter;
use crate::decoder::names::BlockNames;
use crate::named::{Named, Shown, one_of, unnamed_module};
use crate::virtual_tokens::LayerPrefix;

/// Grouped-query attention.
#[derive(Debug, Clone)]
pub(crate) struct Attention {
    pub(crate) qkv: Qkv,
    q_norm: Option<Named<Norm>>,
    k_norm: Option<Named<Norm>>,
    /// `[heads * d_head, d_model]`
    out: Named<Linear>,
    scores: Scores,
}

unnamed_module!(Attention { qkv, q_norm, k_norm, out } with { scores });

/// What makes queries, keys and values.
#[derive(Debug, Clone)]
#[allow(clippy::large_enum_variant, reason = "there is one in each block")]
pub(crate) enum Qkv {
    Separate(SeparateQkv),
    Fused(FusedQkv),
}

one_of!(Qkv { Separate, Fused });

impl Shown for Qkv {
    fn show(&self, content: Content) -> Content {
        match self {
            Self::Separate(qkv) => qkv.show(content),
            Self::Fused(qkv) => qkv.show(content),
        }
    }
}

/// A projection for each.
#[derive(Debug, Clone)]
pub(crate) struct SeparateQkv {
    /// `[d_model, heads * d_head]`
    pub(crate) q: Named<Linear>,
    /// `[d_model, kv_heads * d_head]`
    k: Named<Linear>,
    /// `[d_model, kv_heads * d_head]`
    v: Named<Linear>,
    d_head: usize,
}

unnamed_module!(SeparateQkv { q, k, v } with { d_head });

/// One projection for all.
#[derive(Debug, Clone)]
pub(crate) struct FusedQkv {
    /// `[d_model, (heads + 2 * kv_heads) * d_head]`
    qkv: Named<Linear>,
    per_head: bool,
    n_heads: usize,
    n_kv_heads: usize,
    d_head: usize,
}

unnamed_module!(FusedQkv { qkv } with { per_head, n_heads, n_kv_heads, d_head });

/// What the layers of a forward pass share, as far as it concerns one of them.
pub(crate) struct Surroundings<'a> {
    pub(crate) rope: Option<&'a RopeTables>,
    pub(crate) mask: &'a AttentionMask,
    pub(crate) prefix: Option<&'a LayerPrefix>,
}

impl Attention {
    pub(crate) fn build(
        plan: &AttentionPlan,
        norm: NormPlan,
        d_model: usize,
        names: &BlockNames,
        scope: &mut Scope<'_, '_>,
    ) -> Self {
        let d_head = plan.d_head;
        let (d_q, d_kv) = (plan.n_heads * d_head, plan.n_kv_heads * d_head);
        let mut input = |name, width| scope.linear(name, [d_model, width], plan.qkv_bias);
        let qkv = match plan.qkv {
            QkvForm::Separate => {
                let parts = [(names.q, d_q), (names.k, d_kv), (names.v, d_kv)];
                let parts = parts.map(|(name, width)| input(name, width));
                let [q, k, v] = scope.side_by_side(parts);
                Qkv::Separate(SeparateQkv { q, k, v, d_head })
            }
            form => Qkv::Fused(FusedQkv {
                qkv: input(names.qkv, d_q + 2 * d_kv),
                per_head: form == QkvForm::PerHead,
                n_heads: plan.n_heads,
                n_kv_heads: plan.n_kv_heads,
                d_head,
            }),
        };
        let mut head_norm = |name| plan.head_norms.then(|| scope.norm(name, d_head, norm));
        let (q_norm, k_norm) = (head_norm(names.q_norm), head_norm(names.k_norm));
        Self {
            qkv,
            q_norm,
            k_norm,
            out: scope.residual_linear(names.attention_out, [d_q, d_model], plan.out_bias),
            scores: plan.scores,
        }
    }

    /// # Shapes
    ///
    /// - x, output: `[batch, seq, d_model]`
    pub(crate) fn forward(
        &self,
        x: Tensor<3>,
        around: &Surroundings<'_>,
        cache: Option<LayerWriter<'_>>,
    ) -> Tensor<3> {
        let [batch, seq, _] = x.dims();
        let [q, k, v] = self.heads(x, around.rope).map(|x| x.swap_dims(1, 2)); // [batch, heads or kv_heads, seq, d_head]
        let (k, v) = match around.prefix {
            Some(prefix) => prefix.put(k, v),
            None => (k, v),
        };
        let (k, v) = match cache {
            Some(cache) => cache.append(k, v),
            None => (k, v),
        };
        let y = attention_with(q, k, v, around.mask, self.scores);
        let y = y.swap_dims(1, 2); // [batch, seq, heads, d_head]
        let [_, _, heads, d_head] = y.dims();
        project(&self.out, y.reshape([batch, seq, heads * d_head]))
    }

    /// Queries, keys and values of `x`, at their places.
    ///
    /// # Shapes
    ///
    /// - x: `[batch, seq, d_model]`
    /// - output: `[batch, seq, heads or kv_heads, d_head]` each
    fn heads(&self, x: Tensor<3>, rope: Option<&RopeTables>) -> [Tensor<4>; 3] {
        let has_norms = self.q_norm.is_some() || self.k_norm.is_some();
        let together = match &self.qkv {
            Qkv::Separate(qkv) => qkv.together(&x),
            Qkv::Fused(qkv) => qkv.together(&x),
        };
        let [q, k, v] = match (together, &self.qkv) {
            (Some((qkv, heads)), _) if !has_norms => return split_heads(qkv, heads, rope),
            (Some((qkv, heads)), _) => split_heads(qkv, heads, None),
            (None, Qkv::Separate(qkv)) => qkv.forward(x),
            (None, Qkv::Fused(qkv)) => qkv.by_head(x),
        };
        let turned = |norm: &Option<Named<Norm>>, x: Tensor<4>| {
            let x = match norm {
                Some(norm) => norm.forward(x),
                None => x,
            };
            match rope {
                Some(rope) => rope.apply(x),
                None => x,
            }
        };
        [turned(&self.q_norm, q), turned(&self.k_norm, k), v]
    }
}

impl SeparateQkv {
    /// All three by one product, where there is one, and the heads of each.
    fn together(&self, x: &Tensor<3>) -> Option<(Tensor<3>, [usize; 3])> {
        let layers: [&Linear; 3] = [&self.q, &self.k, &self.v];
        let qkv = project_together(&layers, x)?;
        let heads = layers.map(|layer| layer.weight.lazy_shape()[1] / self.d_head);
        Some((qkv, heads))
    }

    /// As [`Attention::heads`].
    fn forward(&self, x: Tensor<3>) -> [Tensor<4>; 3] {
        let [batch, seq, _] = x.dims();
        let split = |x: Tensor<3>| -> Tensor<4> {
            let heads = x.dims()[2] / self.d_head;
            x.reshape([batch, seq, heads, self.d_head])
        };
        let q = split(project(&self.q, x.clone()));
        let k = split(project(&self.k, x.clone()));
        [q, k, split(project(&self.v, x))]
    }
}

impl FusedQkv {
    /// All queries, all keys and all values, unless those of each head are together.
    fn together(&self, x: &Tensor<3>) -> Option<(Tensor<3>, [usize; 3])> {
        let heads = [self.n_heads, self.n_kv_heads, self.n_kv_heads];
        (!self.per_head).then(|| (project(&self.qkv, x.clone()), heads))
    }

    /// As [`Attention::heads`], each head's query, key and value being together.
    fn by_head(&self, x: Tensor<3>) -> [Tensor<4>; 3] {
        let [batch, seq, _] = x.dims();
        let d = self.d_head;
        let qkv = project(&self.qkv, x); // [batch, seq, heads * 3 * d_head]
        let qkv: Tensor<4> = qkv.reshape([batch, seq, self.n_heads, 3 * d]);
        [0, 1, 2].map(|index| qkv.clone().narrow(3, index * d, d))
    }
}
