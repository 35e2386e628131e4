//! Modules whose place in a checkpoint is data.
//!
//! The derive of [`Module`] makes paths of the names of fields. One decoder and one encoder serve many families, each with its
//! own names, some of which (`self`, `LayerNorm`) could be no field's; so here a module carries its name beside it, and what
//! holds named modules ([`unnamed_module`], [`one_of`]) adds no name of its own.

mod macros;
mod siblings;

use std::fmt;
use std::ops::Deref;

use burn::module::{
    Content, Devices, DisplaySettings, Module, ModuleDisplay, ModuleDisplayDefault, ModuleMapper,
    ModuleVisitor,
};
use burn::tensor::Device;

pub(crate) use macros::{one_of, unnamed_module};
pub use siblings::Siblings;

/// A module under the name that a checkpoint gives it: `attention.self.query`, each part a step of the path. An empty
/// name is no step.
///
/// It stands for the module inside wherever that is only read; [`Self::into_inner`] and [`Self::map_inner`] take it out
/// and exchange it.
#[derive(Debug, Clone)]
pub struct Named<M> {
    name: String,
    inner: M,
}

/// What visitors are told of who holds a part.
const CONTAINER: &str = "Struct:Named";

impl<M> Named<M> {
    /// Puts a module under a name.
    pub(crate) fn new(name: impl Into<String>, inner: M) -> Self {
        Self {
            name: name.into(),
            inner,
        }
    }

    /// The name, relative to the module that holds it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Takes the module out.
    pub fn into_inner(self) -> M {
        self.inner
    }

    /// Exchanges the module and keeps the name.
    pub fn map_inner<T>(self, change: impl FnOnce(M) -> T) -> Named<T> {
        Named::new(self.name, change(self.inner))
    }

    fn shown_name(&self) -> &str {
        match self.name.is_empty() {
            true => "-",
            false => &self.name,
        }
    }

    fn parts(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.name.split('.').filter(|part| !part.is_empty())
    }
}

impl<M> Deref for Named<M> {
    type Target = M;

    fn deref(&self) -> &M {
        &self.inner
    }
}

impl<M: Module> Module for Named<M> {
    fn visit<Visitor: ModuleVisitor>(&self, visitor: &mut Visitor) {
        self.parts()
            .for_each(|part| visitor.enter_module(part, CONTAINER));
        self.inner.visit(visitor);
        self.parts()
            .rev()
            .for_each(|part| visitor.exit_module(part, CONTAINER));
    }

    fn map<Mapper: ModuleMapper>(self, mapper: &mut Mapper) -> Self {
        self.parts()
            .for_each(|part| mapper.enter_module(part, CONTAINER));
        let inner = self.inner.map(mapper);
        let named = Named::new(self.name, inner);
        named
            .parts()
            .rev()
            .for_each(|part| mapper.exit_module(part, CONTAINER));
        named
    }

    fn collect_devices(&self, devices: Devices) -> Devices {
        self.inner.collect_devices(devices)
    }

    fn fork(self, device: &Device) -> Self {
        self.map_inner(|inner| inner.fork(device))
    }

    fn to_device(self, device: &Device) -> Self {
        self.map_inner(|inner| inner.to_device(device))
    }

    fn train(self) -> Self {
        self.map_inner(Module::train)
    }

    fn valid(&self) -> Self {
        Named::new(self.name.clone(), self.inner.valid())
    }

    fn materialize(self) -> Self {
        self.map_inner(Module::materialize)
    }
}

impl<M: Module + ModuleDisplay> ModuleDisplayDefault for Named<M> {
    fn content(&self, content: Content) -> Option<Content> {
        self.show(content).optional()
    }

    fn num_params(&self) -> usize {
        Module::num_params(self)
    }
}

impl<M: Module + ModuleDisplay> ModuleDisplay for Named<M> {}

impl<M: Module + ModuleDisplay> fmt::Display for Named<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&ModuleDisplay::format(self, DisplaySettings::default()))
    }
}

/// What a module may be generic over: a name for what it is for.
pub trait Kind: Clone + Copy + Send + Sync + fmt::Debug + 'static {}

/// A part, or several, that shows itself among the attributes of what holds it.
pub trait Shown {
    fn show(&self, content: Content) -> Content;
}

impl<M: Module + ModuleDisplay> Shown for Named<M> {
    fn show(&self, content: Content) -> Content {
        content.add(self.shown_name(), &self.inner)
    }
}

impl<P: Shown> Shown for Option<P> {
    fn show(&self, content: Content) -> Content {
        match self {
            Some(part) => part.show(content),
            None => content,
        }
    }
}
