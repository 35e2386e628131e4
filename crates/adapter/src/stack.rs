use std::sync::Arc;

use burn::module::{Devices, Module, ModuleMapper, ModuleVisitor, Reparameterization};
use burn::tensor::{DType, Device, Tensor};
use burn_lora_kernels::{LowRank, add_low_rank, projection};

use crate::lora::{Lora, cast};
use crate::method::{Method, begin_weight, product};
use crate::reach;
use crate::view::View;

/// One adapter of a stack.
#[derive(Clone, Debug)]
pub struct NamedAdapter {
    /// The name it was attached under, unique within its stack.
    pub name: String,
    /// What it does to the weight.
    pub method: Method,
    /// Whether it takes part.
    pub(crate) is_active: bool,
}

impl NamedAdapter {
    pub(crate) fn new(name: &str, method: Method) -> Self {
        Self {
            name: name.to_string(),
            method,
            is_active: true,
        }
    }

    /// Whether it takes part in the forward pass, where the stack is enabled.
    pub fn is_active(&self) -> bool {
        self.is_active
    }
}

/// Which adapters of a stack are to be computed.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Chosen<'a> {
    /// Those that are active.
    Active,
    /// One, or the bare base.
    Row(Option<&'a str>),
}

/// The adapters of one parameter, in the order they were attached.
///
/// It lives inside the parameter's `Param` as a Burn [`Reparameterization`]; its parameters are visited as
/// `<path of the weight>.lora.<adapter>.{a,b}`, or whatever the method calls them.
#[derive(Clone, Debug)]
pub struct AdapterStack {
    adapters: Vec<NamedAdapter>,
    view: View,
    enabled: bool,
    /// The adapter of each row of a batch.
    rows: Option<Arc<Vec<Option<String>>>>,
    /// The folded weight, `[d_in, d_out]`. Beside the base and not over it, so that unmerging is exact in every dtype.
    merged: Option<Tensor<2>>,
}

impl AdapterStack {
    pub(crate) fn new(view: View, adapter: NamedAdapter) -> Self {
        Self {
            adapters: vec![adapter],
            view,
            enabled: true,
            rows: None,
            merged: None,
        }
    }

    /// The adapters, in the order they were attached.
    pub fn adapters(&self) -> &[NamedAdapter] {
        &self.adapters
    }

    /// The adapter of this name, if the weight has it and it is LoRA.
    pub fn get(&self, name: &str) -> Option<&Lora> {
        match self.method(name)? {
            Method::Lora(lora) => Some(lora),
            _ => None,
        }
    }

    /// The adapter of this name, if the weight has it.
    pub fn method(&self, name: &str) -> Option<&Method> {
        self.adapters
            .iter()
            .find(|adapter| adapter.name == name)
            .map(|adapter| &adapter.method)
    }

    /// Whether the adapters take part in the forward pass.
    pub fn is_enabled(&self) -> bool {
        self.enabled
    }

    /// Whether the adapters are folded into one dense weight.
    pub fn is_merged(&self) -> bool {
        self.merged.is_some()
    }

    pub(crate) fn view(&self) -> &View {
        &self.view
    }

    pub(crate) fn rows(&self) -> Option<&[Option<String>]> {
        let rows = self.rows.as_ref().filter(|_| self.enabled)?;
        Some(rows.as_slice())
    }

    /// The folded weight, while [merged](Self::is_merged) and enabled. Shape `[d_in, d_out]`.
    pub(crate) fn merged_weight(&self) -> Option<Tensor<2>> {
        self.merged.clone().filter(|_| self.enabled)
    }

    /// Whether every bias that shares the scales of its weight has them from the last walk.
    pub(crate) fn is_tied(&self) -> bool {
        self.adapters.iter().all(|adapter| match &adapter.method {
            Method::TiedBias(bias) => bias.is_tied(),
            _ => true,
        })
    }

    pub(crate) fn push(mut self, adapter: NamedAdapter) -> Self {
        self.adapters.push(adapter);
        self
    }

    /// Changes the list of adapters.
    pub(crate) fn with_adapters(mut self, change: impl FnOnce(&mut Vec<NamedAdapter>)) -> Self {
        change(&mut self.adapters);
        self
    }

    pub(crate) fn with_enabled(mut self, enabled: bool) -> Self {
        self.enabled = enabled;
        self
    }

    pub(crate) fn with_rows(mut self, rows: Option<Arc<Vec<Option<String>>>>) -> Self {
        self.rows = rows;
        self
    }

    /// The adapter of each row, once one has another name.
    pub(crate) fn rows_renamed(&self, from: &str, to: &str) -> Option<Arc<Vec<Option<String>>>> {
        let renamed = |name: &Option<String>| match name.as_deref() == Some(from) {
            true => Some(to.to_string()),
            false => name.clone(),
        };
        let rows = self.rows.as_ref()?;
        Some(Arc::new(rows.iter().map(renamed).collect()))
    }

    pub(crate) fn with_merged(mut self, merged: Option<Tensor<2>>) -> Self {
        self.merged = merged;
        self
    }

    pub(crate) fn chosen(&self, chosen: Chosen<'_>) -> Vec<&Method> {
        let adapters = self.adapters.iter().filter(|_| self.enabled);
        let adapters = adapters.filter(|adapter| match chosen {
            Chosen::Active => adapter.is_active,
            Chosen::Row(name) => name == Some(adapter.name.as_str()),
        });
        adapters.map(|adapter| &adapter.method).collect()
    }

    /// What the adapters make of the weight, computed in f32.
    ///
    /// # Shapes
    /// - base, output: `[d_in, d_out]`
    pub(crate) fn compose_f32(&self, base: Tensor<2>, chosen: Chosen<'_>) -> Tensor<2> {
        let start = cast(base.clone(), DType::F32);
        let methods = self.chosen(chosen).into_iter();
        methods.fold(start, |weight, method| {
            method.inner().compose(weight, &base)
        })
    }

    /// The weight that a forward computes with: [`compose_f32`](Self::compose_f32) under what is dropped in training, rounded
    /// once to the dtype of the weight.
    pub(crate) fn compose(&self, base: Tensor<2>, chosen: Chosen<'_>) -> Tensor<2> {
        let (start, dtype) = (cast(base.clone(), DType::F32), base.dtype());
        let methods = self.chosen(chosen).into_iter();
        let weight = methods.fold(start, |weight, method| {
            method.compose_forward(weight, &base)
        });
        cast(weight, dtype)
    }

    /// The weight as a layer that shares it is to see it: with what belongs to the weight, without what stands beside a layer.
    pub(crate) fn shared(&self, base: Tensor<2>) -> Tensor<2> {
        let methods = self.chosen(Chosen::Active).into_iter();
        let mut methods = methods.filter(|method| method.is_shared()).peekable();
        if methods.peek().is_none() {
            return base;
        }
        let dtype = base.dtype();
        let start = cast(base.clone(), DType::F32);
        let weight = methods.fold(start, |weight, method| {
            method.inner().compose(weight, &base)
        });
        cast(weight, dtype)
    }

    /// What is added to the base product, where that is at most one low-rank change of the same input; `None` where it is more.
    pub(crate) fn single_low_rank(&self) -> Option<Option<LowRank>> {
        if self.rows().is_some() || self.merged_weight().is_some() {
            return None;
        }
        match self.chosen(Chosen::Active).as_slice() {
            [] => Some(None),
            [only] if only.is_low_rank() && !only.drops_inputs() => {
                Some(Some(only.inner().low_rank()?))
            }
            _ => None,
        }
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
        chosen: Chosen<'_>,
    ) -> Tensor<D> {
        let methods = self.chosen(chosen);
        if !methods.iter().all(|method| method.is_low_rank()) {
            return product_of(&methods, x, base, bias);
        }
        let mut active = methods.into_iter();
        let Some(first) = active.next() else {
            return projection(x, base, bias, None);
        };
        // The first adapter is computed with the base product, unless dropout gives it an input of its own.
        let (y, rest) = match first.drops_inputs() {
            true => (projection(x.clone(), base, bias, None), Some(first)),
            false => {
                let low_rank = first.inner().low_rank();
                (projection(x.clone(), base, bias, low_rank), None)
            }
        };
        rest.into_iter()
            .chain(active)
            .fold(y, |y, method| match method.inner().low_rank() {
                Some(low_rank) => add_low_rank(y, method.input(x.clone()), low_rank),
                None => y,
            })
    }

    /// Applies a change of modules and one of tensors to all that is in the stack.
    fn map_parts(
        self,
        mut method: impl FnMut(Method) -> Method,
        mut tensor: impl FnMut(Tensor<2>) -> Tensor<2>,
    ) -> Self {
        self.begin_walk();
        Self {
            adapters: self
                .adapters
                .into_iter()
                .map(|adapter| NamedAdapter {
                    method: method(adapter.method),
                    ..adapter
                })
                .collect(),
            merged: self.merged.map(&mut tensor),
            view: self.view,
            enabled: self.enabled,
            rows: self.rows,
        }
    }

    /// Hands the scales over as a walk would that changes nothing.
    fn announce(&self) {
        self.begin_walk();
        for adapter in &self.adapters {
            if let Method::Ia3(ia3) = &adapter.method {
                ia3.announce();
            }
        }
    }

    /// Tells the scales that a bias may share where they come from.
    fn begin_walk(&self) {
        let shares = |adapter: &NamedAdapter| matches!(adapter.method, Method::Ia3(_));
        if self.adapters.iter().any(shares) {
            begin_weight();
        }
    }
}

/// The product with methods of any kind; the bias comes last, since a magnitude or a scale is not its own.
fn product_of<const D: usize>(
    methods: &[&Method],
    x: Tensor<D>,
    base: Tensor<2>,
    bias: Option<Tensor<1>>,
) -> Tensor<D> {
    let [d_in, d_out] = base.dims();
    let mut shape = x.shape();
    let rows = shape.num_elements() / d_in.max(1);
    shape[D - 1] = d_out;
    let y = product(methods, x.reshape([rows, d_in]), &base);
    let y = match bias {
        Some(bias) => y + bias.reshape([1, d_out]),
        None => y,
    };
    y.reshape(shape)
}

impl Reparameterization for AdapterStack {
    const NAME: &'static str = "lora";

    fn apply<const D: usize>(&self, base: Tensor<D>) -> Tensor<D> {
        // The rows of a batch are told apart where a layer sees the batch; a weight alone is that of the bare base.
        if !self.enabled || self.rows.is_some() {
            return base;
        }
        match &self.merged {
            Some(merged) => self.view.restore(merged.clone()),
            None if self.chosen(Chosen::Active).is_empty() => base,
            None => self
                .view
                .restore(self.compose(self.view.matrix(base), Chosen::Active)),
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
            adapter.method.visit(visitor);
            visitor.exit_module(&adapter.name, "Struct:AdapterStack");
        }
    }

    fn map<M: ModuleMapper>(self, mapper: &mut M) -> Self {
        if let Some(replacement) = reach::take_replacement() {
            replacement.announce();
            return replacement;
        }
        self.begin_walk();
        let adapters = self
            .adapters
            .into_iter()
            .map(|adapter| {
                mapper.enter_module(&adapter.name, "Struct:AdapterStack");
                let method = adapter.method.map(mapper);
                mapper.exit_module(&adapter.name, "Struct:AdapterStack");
                NamedAdapter { method, ..adapter }
            })
            .collect();
        Self { adapters, ..self }
    }

    fn collect_devices(&self, devices: Devices) -> Devices {
        self.adapters.iter().fold(devices, |devices, adapter| {
            adapter.method.collect_devices(devices)
        })
    }

    fn fork(self, device: &Device) -> Self {
        self.map_parts(
            |method| method.fork(device),
            |merged| merged.to_device(device).detach(),
        )
    }

    fn to_device(self, device: &Device) -> Self {
        self.map_parts(
            |method| method.to_device(device),
            |merged| merged.to_device(device),
        )
    }

    fn train(self) -> Self {
        self.map_parts(Module::train, Tensor::from_inner)
    }

    fn valid(&self) -> Self {
        self.clone()
            .map_parts(|method| method.valid(), Tensor::without_autodiff)
    }

    fn materialize(self) -> Self {
        self
    }
}
