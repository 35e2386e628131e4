use burn::nn::Linear;
use burn::tensor::Tensor;
use burn_lora_adapter::project;

use super::T5Config;
use crate::activation::Activation;
use crate::bottleneck::BlockBottlenecks;
use crate::cache::LayerWriter;
use crate::encoder::scope::Scope;
use crate::named::{Named, Siblings, unnamed_module};
use crate::norm::RmsNorm;
use crate::virtual_tokens::LayerPrefix;
use crate::weigh::weigh;

/// One block: `x + f(norm(x))` for attention to itself, in the decoder attention to the encoder, and the inner layer.
#[derive(Debug, Clone)]
pub struct T5Block {
    /// In front of attention.
    pub attention_norm: Named<RmsNorm>,
    /// Attention to the sequence itself.
    pub attention: Named<T5Attention>,
    /// In front of attention to the encoder.
    pub cross_norm: Option<Named<RmsNorm>>,
    /// Attention to the encoder.
    pub cross_attention: Option<Named<T5Attention>>,
    /// In front of the inner layer.
    pub mlp_norm: Named<RmsNorm>,
    /// `[d_model, d_ff]`; of two, the second multiplies the activated first.
    pub inner: Siblings<Named<Linear>>,
    /// `[d_ff, d_model]`
    pub outer: Named<Linear>,
    bottlenecks: BlockBottlenecks,
    activation: Activation,
}

unnamed_module!(T5Block {
    attention_norm, attention, cross_norm, cross_attention, mlp_norm, inner, outer,
    bottlenecks
} with { activation });

/// Multi-head attention whose scores are not scaled.
#[derive(Debug, Clone)]
pub struct T5Attention {
    /// `[d_model, heads * d_kv]`
    pub q: Named<Linear>,
    /// `[d_model, heads * d_kv]`
    pub k: Named<Linear>,
    /// `[d_model, heads * d_kv]`
    pub v: Named<Linear>,
    /// `[heads * d_kv, d_model]`
    pub o: Named<Linear>,
    n_heads: usize,
    d_kv: usize,
}

unnamed_module!(T5Attention { q, k, v, o } with { n_heads, d_kv });

/// Keys and values, `[batch, heads, seq, d_kv]` each.
pub(crate) type KeysValues = (Tensor<4>, Tensor<4>);

impl T5Attention {
    fn build(config: &T5Config, scope: &mut Scope<'_, '_>) -> Self {
        let (d, inner) = (config.d_model, config.num_heads * config.d_kv);
        let factor = config.initializer_factor;
        let mut linear = |name: &str, shape: [usize; 2], fan: usize| {
            scope.set_std(factor * (fan as f64).powf(-0.5));
            scope.linear(name, shape, false)
        };
        Self {
            // The scores are not scaled; the queries start that much smaller.
            q: linear("q", [d, inner], d * config.d_kv),
            k: linear("k", [d, inner], d),
            v: linear("v", [d, inner], d),
            o: linear("o", [inner, d], inner),
            n_heads: config.num_heads,
            d_kv: config.d_kv,
        }
    }

    fn split(&self, x: Tensor<3>) -> Tensor<4> {
        let [batch, seq, _] = x.dims();
        x.reshape([batch, seq, self.n_heads, self.d_kv])
            .swap_dims(1, 2) // [batch, heads, seq, d_kv]
    }

    /// # Shapes
    ///
    /// - x: `[batch, seq, d_model]`
    pub(crate) fn keys_values(&self, x: Tensor<3>) -> KeysValues {
        let k = self.split(project(&self.k, x.clone()));
        (k, self.split(project(&self.v, x)))
    }

    /// # Shapes
    ///
    /// - x, output: `[batch, queries, d_model]`
    /// - bias: what `[batch, heads, queries, keys]` broadcasts with
    fn forward(&self, x: Tensor<3>, (k, v): KeysValues, bias: Option<Tensor<4>>) -> Tensor<3> {
        let [batch, queries, _] = x.dims();
        let q = self.split(project(&self.q, x));
        let scores = q.matmul(k.swap_dims(2, 3)); // [batch, heads, queries, keys]
        let y = weigh(scores, bias, v).swap_dims(1, 2); // [batch, queries, heads, d_kv]
        project(
            &self.o,
            y.reshape([batch, queries, self.n_heads * self.d_kv]),
        )
    }
}

impl T5Block {
    pub(crate) fn build(config: &T5Config, is_decoder: bool, scope: &mut Scope<'_, '_>) -> Self {
        let (d, d_ff, eps) = (config.d_model, config.d_ff, config.layer_norm_epsilon);
        let last = if is_decoder { 2 } else { 1 };
        let mlp = format!("layer.{last}.DenseReluDense");
        let mut attention =
            |name: &str| scope.enter(name, |scope| T5Attention::build(config, scope));
        let (own, cross) = (
            attention("layer.0.SelfAttention"),
            is_decoder.then(|| attention("layer.1.EncDecAttention")),
        );
        let names: &[&str] = match config.is_gated() {
            true => &["wi_0", "wi_1"],
            false => &["wi"],
        };
        scope.set_std(config.initializer_factor * (d as f64).powf(-0.5));
        let inner = names.iter();
        let inner = inner.map(|name| scope.linear(format!("{mlp}.{name}"), [d, d_ff], false));
        let inner = Siblings(inner.collect());
        scope.set_std(config.initializer_factor * (d_ff as f64).powf(-0.5));
        Self {
            attention_norm: scope.rms_norm("layer.0.layer_norm", d, eps),
            attention: own,
            cross_norm: is_decoder.then(|| scope.rms_norm("layer.1.layer_norm", d, eps)),
            cross_attention: cross,
            mlp_norm: scope.rms_norm(format!("layer.{last}.layer_norm"), d, eps),
            inner,
            outer: scope.linear(format!("{mlp}.wo"), [d_ff, d], false),
            bottlenecks: BlockBottlenecks::default(),
            activation: config.activation(),
        }
    }

    /// The keys and values of the encoder's states, in a decoder's block.
    pub(crate) fn cross_keys_values(&self, hidden: Tensor<3>) -> Option<KeysValues> {
        let attention = self.cross_attention.as_ref()?;
        Some(attention.keys_values(hidden))
    }

    /// `bias` is for the sequence itself, `cross` holds keys, values and bias of the encoder.
    ///
    /// # Shapes
    ///
    /// - x, output: `[batch, seq, d_model]`
    pub(crate) fn forward(
        &self,
        x: Tensor<3>,
        bias: &Tensor<4>,
        cross: Option<(KeysValues, Option<Tensor<4>>)>,
        prefix: Option<&LayerPrefix>,
        cache: Option<LayerWriter<'_>>,
    ) -> Tensor<3> {
        let normed = self.attention_norm.forward(x.clone());
        let (k, v) = self.attention.keys_values(normed.clone());
        let (k, v) = match prefix {
            Some(prefix) => prefix.put(k, v),
            None => (k, v),
        };
        let seen = match cache {
            Some(cache) => cache.append(k, v),
            None => (k, v),
        };
        let change = self.attention.forward(normed, seen, Some(bias.clone()));
        let mut x = x + self.bottlenecks.after_attention(change);
        if let (Some(norm), Some(attention), Some((keys_values, bias))) =
            (&self.cross_norm, &self.cross_attention, cross)
        {
            let normed = norm.forward(x.clone());
            x = x + attention.forward(normed, keys_values, bias);
        }
        let normed = self.mlp_norm.forward(x.clone());
        x + self.bottlenecks.at_inner(normed, |x| self.feed(x))
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

    fn feed(&self, x: Tensor<3>) -> Tensor<3> {
        let mut parts = self.inner.iter().map(|linear| project(linear, x.clone()));
        let first = parts.next().map(|first| self.activation.apply(first));
        let inner = parts.fold(first, |product, part| product.map(|x| x * part));
        match inner {
            Some(inner) => project(&self.outer, inner),
            None => x,
        }
    }
}
