use std::ops::Deref;

use burn::module::{
    Content, Devices, Module, ModuleDisplay, ModuleDisplayDefault, ModuleMapper, ModuleVisitor,
};
use burn::tensor::Device;

use super::Shown;

/// Several modules that each carry their own names.
///
/// A [`Vec`] would put their indices into their paths.
#[derive(Debug, Clone)]
pub struct Siblings<M>(pub Vec<M>);

impl<M> Deref for Siblings<M> {
    type Target = [M];

    fn deref(&self) -> &[M] {
        &self.0
    }
}

impl<M: Module> Siblings<M> {
    fn each(self, change: impl FnMut(M) -> M) -> Self {
        Self(self.0.into_iter().map(change).collect())
    }
}

impl<M: Module> Module for Siblings<M> {
    fn visit<Visitor: ModuleVisitor>(&self, visitor: &mut Visitor) {
        self.0.iter().for_each(|module| module.visit(visitor));
    }

    fn map<Mapper: ModuleMapper>(self, mapper: &mut Mapper) -> Self {
        self.each(|module| module.map(mapper))
    }

    fn collect_devices(&self, devices: Devices) -> Devices {
        let modules = self.0.iter();
        modules.fold(devices, |devices, module| module.collect_devices(devices))
    }

    fn fork(self, device: &Device) -> Self {
        self.each(|module| module.fork(device))
    }

    fn to_device(self, device: &Device) -> Self {
        self.each(|module| module.to_device(device))
    }

    fn train(self) -> Self {
        self.each(Module::train)
    }

    fn valid(&self) -> Self {
        Self(self.0.iter().map(Module::valid).collect())
    }

    fn materialize(self) -> Self {
        self.each(Module::materialize)
    }
}

impl<M: Module + ModuleDisplay> ModuleDisplayDefault for Siblings<M> {
    fn content(&self, content: Content) -> Option<Content> {
        self.0.content(content)
    }

    fn num_params(&self) -> usize {
        Module::num_params(self)
    }
}

impl<M: Module + ModuleDisplay> ModuleDisplay for Siblings<M> {}

impl<P: Shown> Shown for Siblings<P> {
    fn show(&self, content: Content) -> Content {
        let parts = self.0.iter();
        parts.fold(content, |content, part| part.show(content))
    }
}
