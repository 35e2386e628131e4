use burn::module::{Module, Param};
use burn::nn::{Embedding, Linear};
use burn::tensor::Tensor;

use super::spec::NormSpec;
use crate::named::Named;
use crate::norm::{LayerNorm, RmsNorm};
use crate::weights::Weights;

/// A place in a checkpoint, from which modules are built under their names.
pub(crate) struct Scope<'s, 'w> {
    path: String,
    weights: &'s mut Weights<'w>,
}

/// A vector that is added, under a name of its own.
#[derive(Module, Debug)]
pub struct Bias {
    /// `[d]`
    pub bias: Param<Tensor<1>>,
}

impl<'s, 'w> Scope<'s, 'w> {
    /// The root of a checkpoint.
    pub(crate) fn root(weights: &'s mut Weights<'w>) -> Self {
        Self {
            path: String::new(),
            weights,
        }
    }

    /// What `build` makes under `name`; an empty name is this place.
    pub(crate) fn enter<M>(
        &mut self,
        name: impl Into<String>,
        build: impl FnOnce(&mut Scope<'_, 'w>) -> M,
    ) -> Named<M> {
        let name = name.into();
        let mut scope = Scope {
            path: self.join(&name),
            weights: &mut *self.weights,
        };
        let inner = build(&mut scope);
        Named::new(name, inner)
    }

    pub(crate) fn linear(
        &mut self,
        name: impl Into<String>,
        [d_in, d_out]: [usize; 2],
        bias: bool,
    ) -> Named<Linear> {
        self.enter(name, |scope| {
            scope.weights.linear(&scope.path, d_in, d_out, bias)
        })
    }

    pub(crate) fn embedding(
        &mut self,
        name: impl Into<String>,
        [n, d]: [usize; 2],
    ) -> Named<Embedding> {
        self.enter(name, |scope| scope.weights.embedding(&scope.path, n, d))
    }

    pub(crate) fn norm(
        &mut self,
        name: impl Into<String>,
        d: usize,
        norm: NormSpec,
    ) -> Named<LayerNorm> {
        self.enter(name, |scope| match norm.bias {
            true => scope.weights.layer_norm(&scope.path, d, norm.eps),
            false => scope.weights.scaling_norm(&scope.path, d, norm.eps),
        })
    }

    /// The parameter `bias` of the module `name`.
    pub(crate) fn bias(&mut self, name: impl Into<String>, d: usize) -> Named<Bias> {
        self.enter(name, |scope| Bias {
            bias: scope.weights.zeros(&scope.path, "bias", d),
        })
    }

    /// A vector that has this name itself.
    pub(crate) fn vector(&mut self, name: &'static str, d: usize) -> Named<Param<Tensor<1>>> {
        Named::new(name, self.weights.zeros(&self.path, name, d))
    }

    /// A convolution's kernel, `[d_out, d_in / groups, width]`.
    pub(crate) fn kernel(&mut self, shape: [usize; 3]) -> Param<Tensor<3>> {
        self.weights.kernel(&self.path, shape)
    }

    /// A root mean square norm.
    pub(crate) fn rms_norm(
        &mut self,
        name: impl Into<String>,
        d: usize,
        eps: f64,
    ) -> Named<RmsNorm> {
        self.enter(name, |scope| scope.weights.rms_norm(&scope.path, d, eps))
    }

    /// The standard deviation of fresh matrices from here on.
    pub(crate) fn set_std(&mut self, std: f64) {
        self.weights.set_std(std);
    }

    fn join(&self, name: &str) -> String {
        match (self.path.is_empty(), name.is_empty()) {
            (true, _) => name.to_owned(),
            (_, true) => self.path.clone(),
            _ => format!("{}.{name}", self.path),
        }
    }
}
