//! The bottlenecks of one block.

use burn::tensor::Tensor;

use super::{Bottleneck, BottleneckConfig, BottleneckPlacement};
use crate::named::{Named, unnamed_module};
use crate::part_methods::PART_MODULES;
use crate::slot::{Held, Slot};

/// The bottlenecks of one name in one block, each under its path, `adapter_after_mlp.NAME`.
#[derive(Debug, Clone)]
pub struct BottleneckSet {
    after_attention: Option<Named<Bottleneck>>,
    after_inner: Option<Named<Bottleneck>>,
    beside_inner: Option<Named<Bottleneck>>,
    pub(super) config: BottleneckConfig,
    name: String,
}

unnamed_module!(BottleneckSet { after_attention, after_inner, beside_inner } with { config, name });

/// Where a block holds its bottlenecks.
pub(crate) type BlockBottlenecks = Slot<BottleneckSet>;

impl BottleneckSet {
    pub(super) fn fresh(
        name: &str,
        config: BottleneckConfig,
        mut fresh: impl FnMut() -> Bottleneck,
    ) -> Self {
        let mut set = |is_there: bool| is_there.then(|| Named::new("", fresh()));
        let placement = config.placement;
        let set = Self {
            after_attention: set(placement == BottleneckPlacement::Houlsby),
            after_inner: set(placement != BottleneckPlacement::Parallel),
            beside_inner: set(placement == BottleneckPlacement::Parallel),
            config,
            name: String::new(),
        };
        set.renamed(name)
    }
}

impl Held for BottleneckSet {
    fn name(&self) -> &str {
        &self.name
    }

    fn renamed(self, to: &str) -> Self {
        let under = |place: &str, bottleneck: Option<Named<Bottleneck>>| {
            bottleneck.map(|one| Named::new(format!("{place}.{to}"), one.into_inner()))
        };
        let [_, after_attention, after_inner, beside_inner] = PART_MODULES;
        Self {
            after_attention: under(after_attention, self.after_attention),
            after_inner: under(after_inner, self.after_inner),
            beside_inner: under(beside_inner, self.beside_inner),
            config: self.config,
            name: to.to_string(),
        }
    }
}

impl BlockBottlenecks {
    /// What attention adds, with the bottleneck behind it.
    pub(crate) fn after_attention(&self, change: Tensor<3>) -> Tensor<3> {
        self.through(change, |set| &set.after_attention)
    }

    /// What an inner layer makes of its input, with the bottlenecks at it.
    pub(crate) fn at_inner(
        &self,
        x: Tensor<3>,
        inner: impl FnOnce(Tensor<3>) -> Tensor<3>,
    ) -> Tensor<3> {
        let is_beside = self.acting().iter().any(|set| set.beside_inner.is_some());
        let beside = is_beside.then(|| {
            self.by_row(x.clone(), |set, x| match set.map(|set| &set.beside_inner) {
                Some(Some(bottleneck)) => bottleneck.change(x),
                _ => x.zeros_like(),
            })
        });
        let change = inner(x);
        let change = match beside {
            Some(beside) => change + beside,
            None => change,
        };
        self.through(change, |set| &set.after_inner)
    }

    fn through(
        &self,
        change: Tensor<3>,
        of: impl Fn(&BottleneckSet) -> &Option<Named<Bottleneck>>,
    ) -> Tensor<3> {
        if !self.acting().into_iter().any(|set| of(set).is_some()) {
            return change;
        }
        self.by_row(change, |set, change| match set.map(&of) {
            Some(Some(bottleneck)) => bottleneck.forward(change),
            _ => change,
        })
    }

    #[cfg(test)]
    pub(crate) fn after_inner(&self) -> Option<&Bottleneck> {
        self.chosen()?.after_inner.as_deref()
    }
}
