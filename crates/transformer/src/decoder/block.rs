use burn::tensor::Tensor;

use super::attention::{Attention, Surroundings};
use super::experts::Experts;
use super::mlp::{Mlp, MlpNames};
use super::norm::Norm;
use super::plan::{MlpForm, Plan, Residual};
use super::scope::Scope;
use crate::bottleneck::BlockBottlenecks;
use crate::cache::LayerWriter;
use crate::named::{Named, one_of, unnamed_module};

/// One block: attention and an inner layer beside the residual stream, as [`Residual`] says.
#[derive(Debug, Clone)]
pub(crate) struct Block {
    norm_1: Named<Norm>,
    pub(crate) attention: Named<Attention>,
    post_norm_1: Option<Named<Norm>>,
    norm_2: Named<Norm>,
    pub(crate) inner: Named<Inner>,
    post_norm_2: Option<Named<Norm>>,
    bottlenecks: BlockBottlenecks,
    residual: Residual,
}

unnamed_module!(Block {
    norm_1,
    attention,
    post_norm_1,
    norm_2,
    inner,
    post_norm_2,
    bottlenecks,
} with { residual });

/// The inner layer, or experts in its place.
#[derive(Debug, Clone)]
#[allow(clippy::large_enum_variant, reason = "there is one in each block")]
pub(crate) enum Inner {
    Dense(Mlp),
    Routed(Experts),
}

one_of!(Inner { Dense, Routed });

impl Inner {
    fn build(plan: &Plan, routed: bool, scope: &mut Scope<'_, '_>) -> Self {
        let (names, d) = (&plan.names.block, plan.d_model);
        if let Some(experts) = plan.experts.filter(|_| routed) {
            return Self::Routed(Experts::build(experts, plan.mlp, d, names, scope));
        }
        let names = MlpNames {
            gate: names.gate,
            up: match plan.mlp.form {
                MlpForm::GatedFused => names.gate_up,
                MlpForm::Plain | MlpForm::Gated => names.up,
            },
            down: names.down,
        };
        Self::Dense(Mlp::build(plan.mlp, d, &names, scope))
    }

    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        match self {
            Self::Dense(mlp) => mlp.forward(x),
            Self::Routed(experts) => experts.forward(x),
        }
    }
}

/// The residual stream `[batch, seq, d_model]`, and what is to be added to it: the norm behind does that.
pub(crate) struct Stream {
    x: Tensor<3>,
    change: Option<Tensor<3>>,
}

impl Stream {
    pub(crate) fn new(x: Tensor<3>) -> Self {
        Self { x, change: None }
    }

    fn with(self, change: Tensor<3>) -> Self {
        Self {
            change: Some(change),
            ..self
        }
    }

    /// With what was to be added.
    pub(crate) fn sum(self) -> Tensor<3> {
        match self.change {
            Some(change) => self.x + change,
            None => self.x,
        }
    }

    /// With what was to be added, and its norm.
    pub(crate) fn normed(self, norm: &Norm) -> [Tensor<3>; 2] {
        norm.residual(self.x, self.change)
    }
}

impl Block {
    pub(crate) fn build(plan: &Plan, index: usize, scope: &mut Scope<'_, '_>) -> Self {
        let (names, d) = (&plan.names.block, plan.d_model);
        let is_sandwich = plan.residual == Residual::Sandwich;
        let norm_1 = scope.norm(names.norm_1, d, plan.norm);
        let attention = scope.part(names.attention, |mut scope| {
            Attention::build(&plan.attention, plan.norm, d, names, &mut scope)
        });
        let post_norm_1 = is_sandwich.then(|| scope.norm(names.post_norm_1, d, plan.norm));
        let norm_2 = scope.norm(names.norm_2, d, plan.norm);
        let inner = scope.part(names.mlp, |mut scope| {
            Inner::build(plan, plan.layers[index].routed, &mut scope)
        });
        let post_norm_2 = is_sandwich.then(|| scope.norm(names.post_norm_2, d, plan.norm));
        Self {
            norm_1,
            attention,
            post_norm_1,
            norm_2,
            inner,
            post_norm_2,
            bottlenecks: BlockBottlenecks::default(),
            residual: plan.residual,
        }
    }

    pub(crate) fn forward(
        &self,
        stream: Stream,
        around: &Surroundings<'_>,
        cache: Option<LayerWriter<'_>>,
    ) -> Stream {
        let [x, normed] = stream.normed(&self.norm_1);
        let change = self.attention.forward(normed, around, cache);
        let change = post(&self.post_norm_1, change);
        let change = self.bottlenecks.after_attention(change);
        if self.residual == Residual::Parallel {
            let normed = self.norm_2.forward(x.clone());
            return Stream::new(x + change).with(self.inner_change(normed));
        }
        let [x, normed] = Stream::new(x).with(change).normed(&self.norm_2);
        Stream::new(x).with(self.inner_change(normed))
    }

    /// What the inner layer adds, with the bottlenecks at it.
    fn inner_change(&self, normed: Tensor<3>) -> Tensor<3> {
        let inner = |x| post(&self.post_norm_2, self.inner.forward(x));
        self.bottlenecks.at_inner(normed, inner)
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
}

fn post(norm: &Option<Named<Norm>>, change: Tensor<3>) -> Tensor<3> {
    match norm {
        Some(norm) => norm.forward(change),
        None => change,
    }
}
