//! [`Decoder`] as a module. The derive would put the variant's name in front of every path; here each method goes
//! straight to the model inside.

use std::fmt;

use burn::module::{
    Content, DisplaySettings, Module, ModuleDisplay, ModuleDisplayDefault, ModuleMapper,
    ModuleVisitor,
};
use burn::tensor::Device;

use crate::decoder::Decoder;

macro_rules! on_both {
    ($decoder:expr, $model:ident => $call:expr) => {
        match $decoder {
            Decoder::Llama($model) => Decoder::Llama($call),
            Decoder::Gpt2($model) => Decoder::Gpt2($call),
        }
    };
}

impl Module for Decoder {
    fn collect_devices(&self, devices: Vec<Device>) -> Vec<Device> {
        match self {
            Self::Llama(model) => model.collect_devices(devices),
            Self::Gpt2(model) => model.collect_devices(devices),
        }
    }

    fn fork(self, device: &Device) -> Self {
        on_both!(self, model => model.fork(device))
    }

    fn to_device(self, device: &Device) -> Self {
        on_both!(self, model => model.to_device(device))
    }

    fn train(self) -> Self {
        on_both!(self, model => model.train())
    }

    fn valid(&self) -> Self {
        on_both!(self, model => model.valid())
    }

    fn materialize(self) -> Self {
        on_both!(self, model => model.materialize())
    }

    fn visit<Visitor: ModuleVisitor>(&self, visitor: &mut Visitor) {
        match self {
            Self::Llama(model) => model.visit(visitor),
            Self::Gpt2(model) => model.visit(visitor),
        }
    }

    fn map<Mapper: ModuleMapper>(self, mapper: &mut Mapper) -> Self {
        on_both!(self, model => model.map(mapper))
    }
}

impl ModuleDisplayDefault for Decoder {
    fn content(&self, content: Content) -> Option<Content> {
        match self {
            Self::Llama(model) => model.content(content),
            Self::Gpt2(model) => model.content(content),
        }
    }

    fn num_params(&self) -> usize {
        Module::num_params(self)
    }
}

impl ModuleDisplay for Decoder {}

impl fmt::Display for Decoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&ModuleDisplay::format(self, DisplaySettings::default()))
    }
}
