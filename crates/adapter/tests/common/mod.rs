//! Two linear layers and what PEFT made of them (`tests/golden/factors.py`).

#![allow(dead_code, reason = "each test uses a part")]
#![allow(clippy::unwrap_used)]

use std::collections::HashMap;
use std::path::PathBuf;

use burn::module::{Module, Param};
use burn::nn::{Linear, LinearConfig};
use burn::tensor::activation::relu;
use burn::tensor::{Device, Tensor, TensorData};
use burn_lora_adapter::project;
use burn_lora_linalg::Matrix;
use safetensors::SafeTensors;

#[derive(Module, Debug)]
pub struct Two {
    pub first: Linear,
    pub second: Linear,
}

impl Two {
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        project(&self.second, relu(project(&self.first, x)))
    }

    pub fn layer(&self, name: &str) -> &Linear {
        match name {
            "first" => &self.first,
            _ => &self.second,
        }
    }
}

pub const LAYERS: [&str; 2] = ["first", "second"];

pub struct Golden(HashMap<String, (Vec<usize>, Vec<f32>)>);

impl Golden {
    pub fn read() -> Self {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
            .join("../../tests/golden/factors/reference.safetensors");
        let bytes = std::fs::read(path).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let tensor = |(key, view): (&str, safetensors::tensor::TensorView<'_>)| {
            let numbers = view.data().as_chunks::<4>().0.iter();
            let numbers = numbers.map(|bytes| f32::from_le_bytes(*bytes)).collect();
            (key.to_string(), (view.shape().to_vec(), numbers))
        };
        Self(file.iter().map(tensor).collect())
    }

    pub fn numbers(&self, key: &str) -> &[f32] {
        &self.0.get(key).unwrap_or_else(|| panic!("no {key}")).1
    }

    pub fn matrix(&self, key: &str) -> Matrix {
        let shape = &self.0[key].0;
        Matrix::from_f32(self.numbers(key), [shape[0], shape[1]])
    }

    pub fn tensor(&self, key: &str, device: &Device) -> Tensor<2> {
        tensor(&self.matrix(key), device)
    }

    pub fn model(&self, device: &Device) -> Two {
        let layer = |name: &str| {
            let weight = self.matrix(&format!("model.{name}.weight")).transpose();
            let bias = self.numbers(&format!("model.{name}.bias"));
            let [d_in, d_out] = weight.shape();
            let mut linear = LinearConfig::new(d_in, d_out).init(device);
            linear.weight = Param::from_tensor(tensor(&weight, device));
            let bias = TensorData::new(bias.to_vec(), [d_out]);
            linear.bias = Some(Param::from_tensor(Tensor::from_data(bias, device)));
            linear
        };
        Two {
            first: layer("first"),
            second: layer("second"),
        }
    }
}

pub fn tensor(matrix: &Matrix, device: &Device) -> Tensor<2> {
    Tensor::from_data(TensorData::new(matrix.to_f32(), matrix.shape()), device)
}

pub fn host(tensor: Tensor<2>) -> Matrix {
    let shape = tensor.dims();
    Matrix::from_f32(&tensor.into_data().try_to_vec::<f32>().unwrap(), shape)
}

/// The largest difference between two matrices of one shape.
pub fn distance(x: &Matrix, y: &Matrix) -> f64 {
    assert_eq!(x.shape(), y.shape());
    (x - y)
        .iter()
        .fold(0.0, |most, value| most.max(value.abs()))
}

#[track_caller]
pub fn assert_near(x: &Matrix, y: &Matrix, tolerance: f64, what: &str) {
    let distance = distance(x, y);
    assert!(distance <= tolerance, "{what}: {distance} > {tolerance}");
}
