//! Modules whose place in a checkpoint is data.
//!
//! The derive of [`Module`] makes paths of the names of fields. One encoder serves many families, each with its own names,
//! some of which (`self`, `LayerNorm`) could be no field's; so here a module carries its name beside it.

use std::fmt;
use std::ops::Deref;

use burn::module::{
    Content, Devices, DisplaySettings, Module, ModuleDisplay, ModuleDisplayDefault, ModuleMapper,
    ModuleVisitor,
};
use burn::tensor::Device;

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
        let name = if self.name.is_empty() {
            "-"
        } else {
            &self.name
        };
        content.add(name, &self.inner).optional()
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

/// Makes a struct a module that adds no step to the paths of its fields: they carry their own names. Fields after
/// `with` are data.
macro_rules! unnamed_module {
    ($module:ident $(<$kind:ident>)? { $($field:ident),+ $(,)? } $(with { $($data:ident),+ $(,)? })?) => {
        impl $(<$kind: $crate::encoder::named::Kind>)? burn::module::Module for $module $(<$kind>)? {
            fn visit<Visitor: burn::module::ModuleVisitor>(&self, visitor: &mut Visitor) {
                $(self.$field.visit(visitor);)+
            }

            fn map<Mapper: burn::module::ModuleMapper>(self, mapper: &mut Mapper) -> Self {
                Self {
                    $($field: burn::module::Module::map(self.$field, mapper),)+
                    $($($data: self.$data,)+)?
                }
            }

            fn collect_devices(&self, devices: burn::module::Devices) -> burn::module::Devices {
                $(let devices = self.$field.collect_devices(devices);)+
                devices
            }

            fn fork(self, device: &burn::tensor::Device) -> Self {
                Self {
                    $($field: self.$field.fork(device),)+
                    $($($data: self.$data,)+)?
                }
            }

            fn to_device(self, device: &burn::tensor::Device) -> Self {
                Self {
                    $($field: self.$field.to_device(device),)+
                    $($($data: self.$data,)+)?
                }
            }

            fn train(self) -> Self {
                Self {
                    $($field: self.$field.train(),)+
                    $($($data: self.$data,)+)?
                }
            }

            fn valid(&self) -> Self {
                Self {
                    $($field: self.$field.valid(),)+
                    $($($data: self.$data.clone(),)+)?
                }
            }

            fn materialize(self) -> Self {
                Self {
                    $($field: self.$field.materialize(),)+
                    $($($data: self.$data,)+)?
                }
            }
        }

        impl $(<$kind: $crate::encoder::named::Kind>)? burn::module::ModuleDisplayDefault
            for $module $(<$kind>)?
        {
            fn content(&self, content: burn::module::Content) -> Option<burn::module::Content> {
                content
                    .set_top_level_type(stringify!($module))
                    $(.add(stringify!($field), &self.$field))+
                    .optional()
            }

            fn num_params(&self) -> usize {
                burn::module::Module::num_params(self)
            }
        }

        impl $(<$kind: $crate::encoder::named::Kind>)? burn::module::ModuleDisplay
            for $module $(<$kind>)?
        {}

        impl $(<$kind: $crate::encoder::named::Kind>)? std::fmt::Display for $module $(<$kind>)? {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                let settings = burn::module::DisplaySettings::default();
                f.write_str(&burn::module::ModuleDisplay::format(self, settings))
            }
        }
    };
}

pub(crate) use unnamed_module;

/// What a module may be generic over: a name for what it is for.
pub trait Kind: Clone + Copy + Send + Sync + fmt::Debug + 'static {}

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
