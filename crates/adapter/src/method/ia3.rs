use std::cell::RefCell;

use burn::module::{Devices, Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{DType, Device, Tensor};

use super::AdapterMethod;
use crate::lora::cast;

/// A trained scale of each output of a layer, or of each input of one in the feed-forward part (Liu et al., 2022,
/// "Few-Shot Parameter-Efficient Fine-Tuning is Better and Cheaper than In-Context Learning", arXiv:2205.05638).
///
/// `W' = W diag(l)` and, with it, `b' = l b`; or `W' = diag(l) W`.
#[derive(Clone, Debug)]
pub struct Ia3 {
    /// The scales, `[1, n]`; start at 1.
    pub scales: Param<Tensor<2>>,
    /// Whether inputs are scaled.
    pub inputs: bool,
    /// How many rows of the weight an input has: the size of a convolution's kernel.
    pub kernel: usize,
}

impl Ia3 {
    /// The scales in the shape that the matrix `[d_in, d_out]` is multiplied by.
    fn factor(&self) -> Tensor<2> {
        let scales = self.scales.val();
        if !self.inputs {
            return scales;
        }
        let [_, n] = scales.dims();
        let column = scales.reshape([n, 1]);
        match self.kernel {
            1 => column,
            kernel => column.repeat_dim(1, kernel).reshape([n * kernel, 1]),
        }
    }

    pub(crate) fn announce(&self) {
        hand_over(&self.scales);
    }

    fn with(self, change: impl FnOnce(Param<Tensor<2>>) -> Param<Tensor<2>>) -> Self {
        let scales = change(self.scales);
        hand_over(&scales);
        Self { scales, ..self }
    }
}

impl AdapterMethod for Ia3 {
    fn parameters(&self) -> Vec<&Param<Tensor<2>>> {
        vec![&self.scales]
    }

    fn compose(&self, weight: Tensor<2>, _base: &Tensor<2>) -> Tensor<2> {
        weight * self.factor()
    }

    fn input_scale(&self) -> Option<Tensor<2>> {
        self.inputs.then(|| self.scales.val())
    }

    fn apply(&self, y: Tensor<2>, _x: Tensor<2>, _base: &Tensor<2>) -> Tensor<2> {
        let dtype = y.dtype();
        cast(cast(y, DType::F32) * self.scales.val(), dtype)
    }
}

/// What (IA)3 does to the bias of a layer whose outputs it scales: `b' = l b`, by the scales of the weight.
///
/// They are one parameter, the weight's; a bias only sees it. A module's walk meets the weight first, and what the walk
/// makes of the scales there is handed over to here, so that both are always the same tensor.
#[derive(Clone, Debug)]
pub struct TiedBias {
    scales: Param<Tensor<2>>,
    /// Whether the last walk met the weight first.
    is_tied: bool,
}

thread_local! {
    /// The scales of the weight that a walk met last, one for each adapter.
    static LAST: RefCell<Vec<Param<Tensor<2>>>> = const { RefCell::new(Vec::new()) };
}

/// Called by a stack of such adapters when a walk comes to it.
pub(crate) fn begin_weight() {
    LAST.with(|last| last.borrow_mut().clear());
}

fn hand_over(scales: &Param<Tensor<2>>) {
    LAST.with(|last| last.borrow_mut().push(scales.clone()));
}

impl TiedBias {
    /// The bias's side of the scales of a weight.
    pub(crate) fn of(ia3: &Ia3) -> Self {
        Self {
            scales: ia3.scales.clone(),
            is_tied: false,
        }
    }

    pub(crate) fn is_tied(&self) -> bool {
        self.is_tied
    }

    fn tied(self) -> Self {
        let id = self.scales.id;
        let met = LAST.with(|last| {
            let mut last = last.borrow_mut();
            let place = last.iter().position(|scales| scales.id == id)?;
            Some(last.swap_remove(place))
        });
        match met {
            Some(scales) => Self {
                scales,
                is_tied: true,
            },
            None => Self {
                is_tied: false,
                ..self
            },
        }
    }
}

impl AdapterMethod for TiedBias {
    fn parameters(&self) -> Vec<&Param<Tensor<2>>> {
        Vec::new()
    }

    fn compose(&self, weight: Tensor<2>, _base: &Tensor<2>) -> Tensor<2> {
        weight * self.scales.val()
    }

    fn apply(&self, y: Tensor<2>, _x: Tensor<2>, _base: &Tensor<2>) -> Tensor<2> {
        y
    }
}

impl Module for Ia3 {
    fn visit<V: ModuleVisitor>(&self, visitor: &mut V) {
        visitor.enter_module("scales", "Struct:Ia3");
        self.scales.visit(visitor);
        visitor.exit_module("scales", "Struct:Ia3");
    }

    fn map<M: ModuleMapper>(self, mapper: &mut M) -> Self {
        mapper.enter_module("scales", "Struct:Ia3");
        let mapped = self.with(|scales| Module::map(scales, mapper));
        mapper.exit_module("scales", "Struct:Ia3");
        mapped
    }

    fn collect_devices(&self, devices: Devices) -> Devices {
        self.scales.collect_devices(devices)
    }

    fn fork(self, device: &Device) -> Self {
        self.with(|scales| scales.fork(device))
    }

    fn to_device(self, device: &Device) -> Self {
        self.with(|scales| scales.to_device(device))
    }

    fn train(self) -> Self {
        self.with(Module::train)
    }

    fn valid(&self) -> Self {
        self.clone().with(|scales| scales.valid())
    }

    fn materialize(self) -> Self {
        self
    }
}

impl Module for TiedBias {
    fn visit<V: ModuleVisitor>(&self, _visitor: &mut V) {}

    fn map<M: ModuleMapper>(self, _mapper: &mut M) -> Self {
        self.tied()
    }

    fn collect_devices(&self, devices: Devices) -> Devices {
        devices
    }

    fn fork(self, _device: &Device) -> Self {
        self.tied()
    }

    fn to_device(self, _device: &Device) -> Self {
        self.tied()
    }

    fn train(self) -> Self {
        self.tied()
    }

    fn valid(&self) -> Self {
        self.clone().tied()
    }

    fn materialize(self) -> Self {
        self
    }
}
