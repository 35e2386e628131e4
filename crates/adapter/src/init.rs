use burn::module::Param;
use burn::tensor::{DType, Device, Tensor, TensorData};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// How the factors of a fresh adapter start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LoraInit {
    /// A is Kaiming-uniform with `a = sqrt(5)`, which is `U(-1/sqrt(d_in), 1/sqrt(d_in))`; B is zero (PEFT's default).
    #[default]
    KaimingUniform,
    /// A is normal with standard deviation `1 / r`; B is zero.
    Gaussian,
    /// Both factors Kaiming-uniform, so that the adapter changes the output at once. For tests of what follows.
    Random,
}

/// The factors `[d_in, rank]` and `[rank, d_out]`, f32, trainable.
///
/// Drawn on the host, so that a seed means the same adapter on every device. `index` numbers the adapted weight.
pub(crate) fn factors(
    init: LoraInit,
    [d_in, rank, d_out]: [usize; 3],
    seed: u64,
    index: u64,
    device: &Device,
) -> (Param<Tensor<2>>, Param<Tensor<2>>) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(index);
    let a = match init {
        LoraInit::KaimingUniform | LoraInit::Random => uniform(&mut rng, d_in * rank, d_in),
        LoraInit::Gaussian => normal(&mut rng, d_in * rank, 1.0 / rank as f64),
    };
    let b = match init {
        LoraInit::KaimingUniform | LoraInit::Gaussian => vec![0.0; rank * d_out],
        LoraInit::Random => uniform(&mut rng, rank * d_out, rank),
    };
    (
        parameter(a, [d_in, rank], device),
        parameter(b, [rank, d_out], device),
    )
}

/// A trainable f32 parameter, whatever the device's default dtype.
pub(crate) fn parameter(values: Vec<f32>, shape: [usize; 2], device: &Device) -> Param<Tensor<2>> {
    let data = TensorData::new(values, shape);
    Param::from_tensor(Tensor::from_data(data, (device, DType::F32)))
}

fn uniform(rng: &mut ChaCha8Rng, count: usize, fan_in: usize) -> Vec<f32> {
    let bound = 1.0 / (fan_in as f32).sqrt();
    (0..count)
        .map(|_| rng.random_range(-bound..bound))
        .collect()
}

/// Normal values by the Box-Muller transform.
fn normal(rng: &mut ChaCha8Rng, count: usize, std: f64) -> Vec<f32> {
    (0..count)
        .map(|_| {
            let radius = (-2.0 * (1.0 - rng.random::<f64>()).ln()).sqrt();
            let angle = std::f64::consts::TAU * rng.random::<f64>();
            (std * radius * angle.cos()) as f32
        })
        .collect()
}
