use burn::module::Module;

use super::*;

fn numbers<const D: usize>(tensor: &Tensor<D>) -> Vec<f64> {
    tensor.to_data().iter().collect()
}

#[test]
fn noise_is_on_the_embeddings_in_training_only() {
    let device = Device::flex();
    let plain = Decoder::init(DecoderConfig::Llama(llama()), &device, 7).expect("the sizes fit");
    let noisy = plain.clone().with_embedding_noise(Some(5.0));
    let rows: [&[u32]; 2] = [&[1, 2, 3, 4, 5, 6], &[9, 8, 7, 6, 5, 4]];
    let hidden = |model: &Decoder, device: &Device| {
        let ids = Tensor::from_data(ids(&rows).into_data(), device);
        numbers(&model.hidden(ids, None))
    };
    assert_eq!(hidden(&noisy, &device), hidden(&plain, &device));
    let autodiff = device.clone().autodiff();
    let (noisy, plain) = (noisy.train(), plain.train());
    assert_ne!(hidden(&noisy, &autodiff), hidden(&plain, &autodiff));
    assert_ne!(hidden(&noisy, &autodiff), hidden(&noisy, &autodiff));
    let silent = noisy.clone().with_embedding_noise(None);
    assert_eq!(hidden(&silent, &autodiff), hidden(&plain, &autodiff));
    assert_eq!(
        hidden(&noisy.valid(), &device),
        hidden(&plain.valid(), &device)
    );
}

/// 40,000 numbers of it.
#[test]
fn noise_is_uniform_within_its_bound() {
    let (seq, d_model, alpha) = (50, 40, 5.0);
    let x = Tensor::<3>::zeros([20, seq, d_model], &Device::flex());
    let noise = numbers(&crate::decoder::trunk::with_noise(x, alpha));
    let bound = alpha / ((seq * d_model) as f64).sqrt();
    assert!(noise.iter().all(|value| value.abs() <= bound + 1e-9));
    let mean = noise.iter().sum::<f64>() / noise.len() as f64;
    let spread = (noise.iter().map(|value| value * value).sum::<f64>() / noise.len() as f64).sqrt();
    // That of a uniform distribution is bound / sqrt(3).
    assert!(mean.abs() < bound * 0.02, "{mean}");
    assert!(
        (spread * 3f64.sqrt() / bound - 1.0).abs() < 0.02,
        "{spread}"
    );
}
