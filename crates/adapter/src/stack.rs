use burn::module::{Devices, Module, ModuleMapper, ModuleVisitor, Reparameterization};
use burn::tensor::{DType, Device, Tensor};
use burn_lora_kernels::{add_low_rank, projection};

use crate::lora::{Lora, cast};
use crate::reach;

/// One adapter of a stack.
#[derive(Clone, Debug)]
pub struct NamedAdapter {
    /// The name it was attached under, unique within its stack.
    pub name: String,
    /// The low-rank change itself.
    pub lora: Lora,
}

/// The adapters of one weight, in the order they were attached.
///
/// It lives inside the weight's `Param` as a Burn [`Reparameterization`]; its parameters are visited as
/// `<path of the weight>.lora.<adapter>.{a,b}`.
#[derive(Clone, Debug)]
pub struct AdapterStack {
    adapters: Vec<NamedAdapter>,
    enabled: bool,
    /// The folded weight, `[d_in, d_out]`. Beside the base and not over it, so that unmerging is exact in every dtype.
    merged: Option<Tensor<2>>,
}

impl AdapterStack {
    pub(crate) fn new(adapter: NamedAdapter) -> Self {
        Self {
            adapters: vec![adapter],
            enabled: true,
            merged: None,
        }
    }

    /// The adapters, in the order they were attached.
    pub fn adapters(&self) -> &[NamedAdapter] {
        &self.adapters
    }

    /// The adapter of this name, if the weight has it.
    pub fn get(&self, name: &str) -> Option<&Lora> {
        self.adapters
            .iter()
            .find(|adapter| adapter.name == name)
            .map(|adapter| &adapter.lora)
    }

    /// Whether the adapters take part in the forward pass.
    pub fn is_enabled(&self) -> bool {
        self.enabled
    }

    /// Whether the adapters are folded into one dense weight.
    pub fn is_merged(&self) -> bool {
        self.merged.is_some()
    }

    /// The folded weight, while [merged](Self::is_merged) and enabled. Shape `[d_in, d_out]`.
    pub(crate) fn merged_weight(&self) -> Option<Tensor<2>> {
        self.merged.clone().filter(|_| self.enabled)
    }

    pub(crate) fn push(mut self, adapter: NamedAdapter) -> Self {
        self.adapters.push(adapter);
        self
    }

    pub(crate) fn with_enabled(mut self, enabled: bool) -> Self {
        self.enabled = enabled;
        self
    }

    pub(crate) fn with_merged(mut self, merged: Option<Tensor<2>>) -> Self {
        self.merged = merged;
        self
    }

    /// `W + sum of s A B`, added in f32 and rounded once to the dtype of `W`.
    ///
    /// # Shapes
    /// - base, output: `[d_in, d_out]`
    pub(crate) fn compose(&self, base: Tensor<2>) -> Tensor<2> {
        let dtype = base.dtype();
        let base = cast(base, DType::F32);
        let composed = self.adapters.iter().fold(base, |weight, adapter| {
            weight + cast(adapter.lora.delta(), DType::F32)
        });
        cast(composed, dtype)
    }

    /// The base layer's output with what the adapters contribute.
    ///
    /// # Shapes
    /// - x: `[..., d_in]`
    /// - base: `[d_in, d_out]`
    /// - bias: `[d_out]`
    /// - output: `[..., d_out]`
    pub(crate) fn project<const D: usize>(
        &self,
        x: Tensor<D>,
        base: Tensor<2>,
        bias: Option<Tensor<1>>,
    ) -> Tensor<D> {
        let mut active = self.adapters.iter().filter(|_| self.enabled);
        let Some(first) = active.next() else {
            return projection(x, base, bias, None);
        };
        // The first adapter is computed with the base product, unless dropout gives it an input of its own.
        let (y, rest) = match first.lora.drops_inputs() {
            true => (projection(x.clone(), base, bias, None), Some(first)),
            false => {
                let low_rank = Some(first.lora.low_rank());
                (projection(x.clone(), base, bias, low_rank), None)
            }
        };
        rest.into_iter().chain(active).fold(y, |y, adapter| {
            add_low_rank(y, adapter.lora.input(x.clone()), adapter.lora.low_rank())
        })
    }

    fn map_parts(
        self,
        mut lora: impl FnMut(Lora) -> Lora,
        mut tensor: impl FnMut(Tensor<2>) -> Tensor<2>,
    ) -> Self {
        Self {
            adapters: self
                .adapters
                .into_iter()
                .map(|adapter| NamedAdapter {
                    name: adapter.name,
                    lora: lora(adapter.lora),
                })
                .collect(),
            enabled: self.enabled,
            merged: self.merged.map(&mut tensor),
        }
    }
}

impl Reparameterization for AdapterStack {
    const NAME: &'static str = "lora";

    fn apply<const D: usize>(&self, base: Tensor<D>) -> Tensor<D> {
        if !self.enabled {
            return base;
        }
        // A stack is attached to rank-2 weights only, so the reshapes change the type and not the shape.
        let shape = base.shape();
        match &self.merged {
            Some(merged) => merged.clone().reshape(shape),
            None => {
                let [d_in, d_out] = [shape[0], shape[1]];
                self.compose(base.reshape([d_in, d_out])).reshape(shape)
            }
        }
    }
}

/// Written by hand because the adapters' names are part of the paths, and because this is where code outside a module
/// reaches the stacks inside it (see the module `reach`).
impl Module for AdapterStack {
    fn visit<V: ModuleVisitor>(&self, visitor: &mut V) {
        reach::show(self);
        for adapter in &self.adapters {
            visitor.enter_module(&adapter.name, "Struct:AdapterStack");
            adapter.lora.visit(visitor);
            visitor.exit_module(&adapter.name, "Struct:AdapterStack");
        }
    }

    fn map<M: ModuleMapper>(self, mapper: &mut M) -> Self {
        if let Some(replacement) = reach::take_replacement() {
            return replacement;
        }
        let adapters = self
            .adapters
            .into_iter()
            .map(|NamedAdapter { name, lora }| {
                mapper.enter_module(&name, "Struct:AdapterStack");
                let lora = lora.map(mapper);
                mapper.exit_module(&name, "Struct:AdapterStack");
                NamedAdapter { name, lora }
            })
            .collect();
        Self { adapters, ..self }
    }

    fn collect_devices(&self, devices: Devices) -> Devices {
        self.adapters.iter().fold(devices, |devices, adapter| {
            adapter.lora.collect_devices(devices)
        })
    }

    fn fork(self, device: &Device) -> Self {
        self.map_parts(
            |lora| lora.fork(device),
            |merged| merged.to_device(device).detach(),
        )
    }

    fn to_device(self, device: &Device) -> Self {
        self.map_parts(
            |lora| lora.to_device(device),
            |merged| merged.to_device(device),
        )
    }

    fn train(self) -> Self {
        self.map_parts(Module::train, Tensor::from_inner)
    }

    fn valid(&self) -> Self {
        self.clone()
            .map_parts(|lora| lora.valid(), Tensor::without_autodiff)
    }

    fn materialize(self) -> Self {
        self
    }
}
