//! The methods: each a file with its formula, its paper, its parameters and what it does to a weight.

mod adalora;
mod config;
mod delta_dropout;
mod dense;
mod dora;
mod ia3;
mod loha;
mod lokr;
mod low_rank;
mod mersenne;
mod parts;
mod table;
mod tokens;
mod vera;

use std::fmt::Debug;

use burn::module::{Devices, Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{DType, Device, Tensor};
use burn_lora_kernels::{LowRank, add_low_rank, projection};

pub use adalora::AdaLora;
pub use config::{AdaLoraConfig, Ia3Config, LoHaConfig, LoKrConfig, MethodConfig, VeraConfig};
pub(crate) use delta_dropout::DeltaDropout;
pub use dense::Dense;
pub use dora::Dora;
pub(crate) use dora::column_norms;
pub(crate) use ia3::begin_weight;
pub use ia3::{Ia3, TiedBias};
pub use loha::LoHa;
pub use lokr::LoKr;
pub(crate) use lokr::{LoKrShape, Second};
pub use parts::{Columns, Parts};
pub use table::{METHODS, MethodInfo, trainable_count};
pub use tokens::Tokens;
pub use vera::Vera;
pub(crate) use vera::{Projections, random_projections};

use crate::lora::{Lora, cast, drop_inputs, is_trained};

/// What a method does to one weight.
///
/// The weight is seen as the matrix `[d_in, d_out]`, whatever its layer; a method changes the matrix, and says so in both
/// ways that a layer may compute: by the matrix, and beside the layer's own product.
pub(crate) trait AdapterMethod: Debug {
    /// The parameters, in the order of the method's tensors in a file.
    fn parameters(&self) -> Vec<&Param<Tensor<2>>>;

    /// The changed matrix, in f32.
    ///
    /// # Shapes
    /// - weight: `[d_in, d_out]`, f32, what the adapters before this one made of the weight
    /// - base: `[d_in, d_out]`, the frozen weight
    fn compose(&self, weight: Tensor<2>, _base: &Tensor<2>) -> Tensor<2> {
        match self.low_rank() {
            Some(LowRank { a, b, scale }) => {
                weight + cast(a.matmul(b).mul_scalar(scale), DType::F32)
            }
            None => match self.delta() {
                Some(delta) => weight + delta,
                None => weight,
            },
        }
    }

    /// The change as a matrix, for a method that makes one: what [`compose`](Self::compose) and [`apply`](Self::apply) are then
    /// made of.
    ///
    /// # Shapes
    /// - output: `[d_in, d_out]`, f32
    fn delta(&self) -> Option<Tensor<2>> {
        None
    }

    /// What of [that matrix](Self::delta) is dropped in training.
    fn delta_dropout(&self) -> Option<&DeltaDropout> {
        None
    }

    /// The change as the kernels take it, for a method that is a product of two factors: what
    /// [`compose`](Self::compose) and [`apply`](Self::apply) are then made of. Any other method has its own.
    fn low_rank(&self) -> Option<LowRank> {
        None
    }

    /// What the inputs of the layer are multiplied by before all else, `[1, d_in]`.
    fn input_scale(&self) -> Option<Tensor<2>> {
        None
    }

    /// The layer's product with this method's change, from that without it.
    ///
    /// # Shapes
    /// - y: `[rows, d_out]`, without the layer's bias
    /// - x: `[rows, d_in]`
    /// - base: `[d_in, d_out]`
    fn apply(&self, y: Tensor<2>, x: Tensor<2>, _base: &Tensor<2>) -> Tensor<2> {
        match self.low_rank() {
            Some(low_rank) => add_low_rank(y, x, low_rank),
            None => match self.delta() {
                Some(delta) => add_dense(y, x, delta),
                None => y,
            },
        }
    }

    /// Probability that an input is dropped in training.
    fn dropout(&self) -> f64 {
        0.0
    }

    /// What the change is multiplied by, for a method that has such a number.
    fn scale(&self) -> Option<f64> {
        None
    }

    /// The inner dimension, for a method that has one.
    fn rank(&self) -> Option<usize> {
        None
    }
}

/// `y` with a change that is `[d_in, d_out]`, computed in f32 beside the layer's own product.
fn add_dense(y: Tensor<2>, x: Tensor<2>, delta: Tensor<2>) -> Tensor<2> {
    let dtype = y.dtype();
    let change = projection(cast(x, DType::F32), delta, None, None);
    y + cast(change, dtype)
}

/// The down-projection of a kernel whose factors meet in a core: `sum_j T[i, j, place] A[channel, j]`.
///
/// # Shapes
/// - a: `[channels, rank]`
/// - core: `[rank, rank x kernel]`
/// - output: `[channels x kernel, rank]`
fn through_core(a: Tensor<2>, core: Tensor<2>) -> Tensor<2> {
    let [channels, rank] = a.dims();
    let kernel = core.dims()[1] / rank;
    let core = core.reshape([rank, rank, kernel]).swap_dims(0, 1); // [j, i, kernel]
    let met = a.matmul(core.reshape([rank, rank * kernel]));
    let met = met.reshape([channels, rank, kernel]).swap_dims(1, 2); // [channels, kernel, i]
    met.reshape([channels * kernel, rank])
}

macro_rules! methods {
    ($($(#[$doc:meta])* $name:ident($module:ty)),+ $(,)?) => {
        /// An adapter of one weight, by its method.
        #[derive(Clone, Debug)]
        #[non_exhaustive]
        #[allow(clippy::large_enum_variant, reason = "handles of tensors, one for each weight")]
        pub enum Method {
            $($(#[$doc])* $name($module),)+
        }

        impl Method {
            pub(crate) fn inner(&self) -> &dyn AdapterMethod {
                match self {
                    $(Self::$name(method) => method,)+
                }
            }

            /// The method's name.
            pub fn name(&self) -> &'static str {
                match self {
                    $(Self::$name(_) => stringify!($name),)+
                }
            }
        }

        /// By hand, because a derived one would put the method's name into the paths.
        impl Module for Method {
            fn visit<V: ModuleVisitor>(&self, visitor: &mut V) {
                match self {
                    $(Self::$name(method) => method.visit(visitor),)+
                }
            }

            fn map<M: ModuleMapper>(self, mapper: &mut M) -> Self {
                match self {
                    $(Self::$name(method) => Self::$name(method.map(mapper)),)+
                }
            }

            fn collect_devices(&self, devices: Devices) -> Devices {
                match self {
                    $(Self::$name(method) => method.collect_devices(devices),)+
                }
            }

            fn fork(self, device: &Device) -> Self {
                match self {
                    $(Self::$name(method) => Self::$name(method.fork(device)),)+
                }
            }

            fn to_device(self, device: &Device) -> Self {
                match self {
                    $(Self::$name(method) => Self::$name(method.to_device(device)),)+
                }
            }

            fn train(self) -> Self {
                match self {
                    $(Self::$name(method) => Self::$name(method.train()),)+
                }
            }

            fn valid(&self) -> Self {
                match self {
                    $(Self::$name(method) => Self::$name(method.valid()),)+
                }
            }

            fn materialize(self) -> Self {
                self
            }
        }
    };
}

methods! {
    /// A product of two factors; with a frozen A, LoRA-FA.
    Lora(Lora),
    /// LoRA under a magnitude for each output.
    Dora(Dora),
    /// Scales between random projections that all layers share.
    Vera(Vera),
    /// An elementwise product of two low-rank matrices.
    LoHa(LoHa),
    /// A Kronecker product.
    LoKr(LoKr),
    /// A singular value decomposition whose rank is given away as training goes on.
    AdaLora(AdaLora),
    /// Scales of inputs or outputs.
    Ia3(Ia3),
    /// What (IA)3 does to the bias of a layer.
    TiedBias(TiedBias),
    /// A change of every number.
    Dense(Dense),
    /// New rows of an embedding.
    Tokens(Tokens),
    /// LoRA on some of the columns of a fused projection.
    Parts(Parts),
}

impl Method {
    /// How many parameters it trains.
    pub fn num_parameters(&self) -> usize {
        let parameters = self.inner().parameters().into_iter();
        parameters
            .filter(|param| match param.base().is_autodiff() {
                true => is_trained(param),
                // Away from an autodiff device a parameter tells when it is put into training.
                false => Param::clone(param).train().is_require_grad(),
            })
            .map(|param| param.lazy_shape().num_elements())
            .sum()
    }

    /// The inner dimension, for a method that has one.
    pub fn rank(&self) -> Option<usize> {
        self.inner().rank()
    }

    /// What the change is multiplied by, for a method that has such a number.
    pub fn scale(&self) -> Option<f64> {
        self.inner().scale()
    }

    /// Whether a layer that shares the weight, a head tied to an embedding, is to see the change, too: rows that are new,
    /// or a weight that is trained as such, are what they are for all; what PEFT puts beside a layer is that layer's own.
    pub(crate) fn is_shared(&self) -> bool {
        matches!(self, Self::Tokens(_) | Self::Dense(_))
    }

    /// Whether the method is a product of two factors beside the layer's own.
    pub(crate) fn is_low_rank(&self) -> bool {
        matches!(
            self,
            Self::Lora(_) | Self::Vera(_) | Self::AdaLora(_) | Self::Parts(_)
        )
    }

    /// Whether the adapter's input differs from the layer's: only what is being trained needs regularizing.
    pub(crate) fn drops_inputs(&self) -> bool {
        self.inner().dropout() > 0.0 && self.is_trained()
    }

    /// Whether a forward draws random numbers for it.
    pub(crate) fn drops(&self) -> bool {
        self.drops_inputs() || self.dropped_delta().is_some()
    }

    /// The dropout of a change that is a matrix, where it acts.
    fn dropped_delta(&self) -> Option<&DeltaDropout> {
        let dropout = self.inner().delta_dropout()?;
        (dropout.is_active() && self.is_trained()).then_some(dropout)
    }

    /// The change with what is dropped of it, where anything is.
    fn delta_forward(&self) -> Option<Tensor<2>> {
        let dropout = self.dropped_delta()?;
        Some(dropout.apply(self.inner().delta()?))
    }

    fn is_trained(&self) -> bool {
        self.inner().parameters().into_iter().any(is_trained)
    }

    /// [`compose`](AdapterMethod::compose) as a forward needs it: with dropout where it acts. What is merged has none.
    pub(crate) fn compose_forward(&self, weight: Tensor<2>, base: &Tensor<2>) -> Tensor<2> {
        match self.delta_forward() {
            Some(delta) => weight + delta,
            None => self.inner().compose(weight, base),
        }
    }

    /// [`apply`](AdapterMethod::apply) with dropout of the change where it acts.
    fn apply_forward(&self, y: Tensor<2>, x: Tensor<2>, base: &Tensor<2>) -> Tensor<2> {
        match self.delta_forward() {
            Some(delta) => add_dense(y, x, delta),
            None => self.inner().apply(y, x, base),
        }
    }

    /// What the adapter sees of the layer's input.
    pub(crate) fn input<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        match self.drops_inputs() {
            true => drop_inputs(cast(x, DType::F32), self.inner().dropout()),
            false => x,
        }
    }
}

/// A layer's product with its adapters, the first of them innermost: `x (... (W + D1) ...)`.
///
/// # Shapes
/// - x: `[rows, d_in]`
/// - base: `[d_in, d_out]`
/// - output: `[rows, d_out]`, in the dtype of the base
pub(crate) fn product(methods: &[&Method], x: Tensor<2>, base: &Tensor<2>) -> Tensor<2> {
    let Some((last, before)) = methods.split_last() else {
        return projection(x, base.clone(), None, None);
    };
    if let Some(scale) = last.inner().input_scale() {
        let dtype = x.dtype();
        let scaled = cast(cast(x, scale.dtype()) * scale, dtype);
        return product(before, scaled, base);
    }
    let y = product(before, x.clone(), base);
    match last.inner().low_rank() {
        Some(low_rank) => add_low_rank(y, cast(last.input(x), DType::F32), low_rank),
        None => last.apply_forward(y, x, base),
    }
}
