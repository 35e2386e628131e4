//! Where in a decoder parameters are asked for: what a part needs to be built.

use burn::nn::{Embedding, Linear};

use super::norm::{Norm, NormKind};
use super::plan::{LinearForm, NormPlan};
use crate::named::Named;
use crate::weights::Weights;

/// The place of a module, under whose name its parts ask for their parameters.
pub(crate) struct Scope<'s, 'w> {
    path: String,
    linear: LinearForm,
    weights: &'s mut Weights<'w>,
}

impl<'s, 'w> Scope<'s, 'w> {
    /// The place of a whole model.
    pub(crate) fn root(weights: &'s mut Weights<'w>, linear: LinearForm) -> Self {
        Self {
            path: String::new(),
            linear,
            weights,
        }
    }

    fn join(&self, name: &str) -> String {
        match self.path.is_empty() {
            true => name.into(),
            false => format!("{}.{name}", self.path),
        }
    }

    fn inner(&mut self, name: &str) -> Scope<'_, 'w> {
        Scope {
            path: self.join(name),
            linear: self.linear,
            weights: self.weights,
        }
    }

    /// A part with parts of its own.
    pub(crate) fn part<M>(
        &mut self,
        name: &'static str,
        build: impl FnOnce(Scope<'_, 'w>) -> M,
    ) -> Named<M> {
        Named::new(name, build(self.inner(name)))
    }

    /// A list of parts, under their numbers.
    pub(crate) fn list<M>(
        &mut self,
        name: &'static str,
        count: usize,
        build: impl Fn(usize, Scope<'_, 'w>) -> M,
    ) -> Named<Vec<M>> {
        self.part(name, |mut scope| {
            (0..count)
                .map(|index| build(index, scope.inner(&index.to_string())))
                .collect()
        })
    }

    pub(crate) fn embedding(&mut self, name: &'static str, n: usize, d: usize) -> Named<Embedding> {
        let path = self.join(name);
        Named::new(name, self.weights.embedding(&path, n, d))
    }

    pub(crate) fn norm(
        &mut self,
        name: &'static str,
        d: usize,
        NormPlan { kind, eps }: NormPlan,
    ) -> Named<Norm> {
        let path = self.join(name);
        let norm = match kind {
            NormKind::Rms => Norm::Rms(self.weights.rms_norm(&path, d, eps)),
            NormKind::RmsFromOne => Norm::RmsFromOne(self.weights.rms_norm_from_one(&path, d, eps)),
            NormKind::Layer => Norm::Layer(self.weights.layer_norm(&path, d, eps)),
        };
        Named::new(name, norm)
    }

    /// A linear layer `[d_in, d_out]`.
    pub(crate) fn linear(
        &mut self,
        name: &'static str,
        d: [usize; 2],
        bias: bool,
    ) -> Named<Linear> {
        self.sized(name, d, bias, |_| 1.0)
    }

    /// A linear layer that writes into the residual stream.
    pub(crate) fn residual_linear(
        &mut self,
        name: &'static str,
        d: [usize; 2],
        bias: bool,
    ) -> Named<Linear> {
        self.sized(name, d, bias, |shrink| shrink)
    }

    /// Layers of the same input, laid out so that one product has all of them.
    pub(crate) fn side_by_side<const N: usize>(
        &self,
        layers: [Named<Linear>; N],
    ) -> [Named<Linear>; N] {
        self.weights.side_by_side(layers)
    }

    fn sized(
        &mut self,
        name: &'static str,
        [d_in, d_out]: [usize; 2],
        bias: bool,
        size: impl Fn(f64) -> f64,
    ) -> Named<Linear> {
        let path = self.join(name);
        let linear = match self.linear {
            LinearForm::Linear => self.weights.linear(&path, d_in, d_out, bias),
            LinearForm::Conv1d { shrink } => {
                let std = self.weights.std() * size(shrink);
                self.weights.conv1d(&path, d_in, d_out, std)
            }
        };
        Named::new(name, linear)
    }
}
