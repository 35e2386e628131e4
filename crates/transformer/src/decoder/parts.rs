//! Modules whose names are data. The derive makes a path of the names of fields; here a part carries the name that its
//! family gives it, and what holds the parts adds none of its own.

use std::ops::Deref;

use burn::module::{Content, Devices, Module, ModuleDisplay, ModuleMapper, ModuleVisitor};
use burn::tensor::Device;

/// What visitors are told of who holds a part.
const CONTAINER: &str = "Struct:Decoder";

/// A module under a name of the checkpoint.
#[derive(Debug, Clone)]
pub(crate) struct Named<M> {
    name: &'static str,
    module: M,
}

impl<M> Named<M> {
    pub(crate) fn new(name: &'static str, module: M) -> Self {
        Self { name, module }
    }
}

impl<M> Deref for Named<M> {
    type Target = M;

    fn deref(&self) -> &M {
        &self.module
    }
}

impl<M: Module> Named<M> {
    /// The same name for a changed module.
    pub(crate) fn with(self, change: impl FnOnce(M) -> M) -> Self {
        Self {
            name: self.name,
            module: change(self.module),
        }
    }
}

impl<M: Module> Module for Named<M> {
    fn visit<Visitor: ModuleVisitor>(&self, visitor: &mut Visitor) {
        visitor.enter_module(self.name, CONTAINER);
        self.module.visit(visitor);
        visitor.exit_module(self.name, CONTAINER);
    }

    fn map<Mapper: ModuleMapper>(self, mapper: &mut Mapper) -> Self {
        let name = self.name;
        mapper.enter_module(name, CONTAINER);
        let mapped = self.with(|module| module.map(mapper));
        mapper.exit_module(name, CONTAINER);
        mapped
    }

    fn collect_devices(&self, devices: Devices) -> Devices {
        self.module.collect_devices(devices)
    }

    fn fork(self, device: &Device) -> Self {
        self.with(|module| module.fork(device))
    }

    fn to_device(self, device: &Device) -> Self {
        self.with(|module| module.to_device(device))
    }

    fn train(self) -> Self {
        self.with(Module::train)
    }

    fn valid(&self) -> Self {
        Self::new(self.name, self.module.valid())
    }

    fn materialize(self) -> Self {
        self.with(Module::materialize)
    }
}

/// A part, or several, that shows itself among the attributes of what holds it.
pub(crate) trait Shown {
    fn show(&self, content: Content) -> Content;
}

impl<M: ModuleDisplay> Shown for Named<M> {
    fn show(&self, content: Content) -> Content {
        content.add(self.name, &self.module)
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

/// Makes a module of a struct whose parts are [`Named`], or are made of such parts. What is `kept` is no module.
macro_rules! made_of {
    ($module:ident { $($part:ident),+ $(,)? } kept { $($kept:ident),* $(,)? }) => {
        impl burn::module::Module for $module {
            fn visit<Visitor: burn::module::ModuleVisitor>(&self, visitor: &mut Visitor) {
                $(burn::module::Module::visit(&self.$part, visitor);)+
            }

            fn map<Mapper: burn::module::ModuleMapper>(self, mapper: &mut Mapper) -> Self {
                Self {
                    $($part: burn::module::Module::map(self.$part, mapper),)+
                    $($kept: self.$kept,)*
                }
            }

            fn collect_devices(&self, devices: burn::module::Devices) -> burn::module::Devices {
                $(let devices = burn::module::Module::collect_devices(&self.$part, devices);)+
                devices
            }

            fn fork(self, device: &burn::tensor::Device) -> Self {
                Self {
                    $($part: burn::module::Module::fork(self.$part, device),)+
                    $($kept: self.$kept,)*
                }
            }

            fn to_device(self, device: &burn::tensor::Device) -> Self {
                Self {
                    $($part: burn::module::Module::to_device(self.$part, device),)+
                    $($kept: self.$kept,)*
                }
            }

            fn train(self) -> Self {
                Self {
                    $($part: burn::module::Module::train(self.$part),)+
                    $($kept: self.$kept,)*
                }
            }

            fn valid(&self) -> Self {
                Self {
                    $($part: burn::module::Module::valid(&self.$part),)+
                    $($kept: self.$kept.clone(),)*
                }
            }

            fn materialize(self) -> Self {
                Self {
                    $($part: burn::module::Module::materialize(self.$part),)+
                    $($kept: self.$kept,)*
                }
            }
        }

        impl $crate::decoder::parts::Shown for $module {
            fn show(&self, content: burn::module::Content) -> burn::module::Content {
                $(let content = $crate::decoder::parts::Shown::show(&self.$part, content);)+
                content
            }
        }

        $crate::decoder::parts::displayed!($module);
    };
}
pub(crate) use made_of;

/// Makes a module of an enum of modules, which adds nothing to their paths.
macro_rules! one_of {
    ($module:ident { $($variant:ident),+ $(,)? }) => {
        impl burn::module::Module for $module {
            fn visit<Visitor: burn::module::ModuleVisitor>(&self, visitor: &mut Visitor) {
                match self {
                    $(Self::$variant(part) => part.visit(visitor),)+
                }
            }

            fn map<Mapper: burn::module::ModuleMapper>(self, mapper: &mut Mapper) -> Self {
                match self {
                    $(Self::$variant(part) => Self::$variant(part.map(mapper)),)+
                }
            }

            fn collect_devices(&self, devices: burn::module::Devices) -> burn::module::Devices {
                match self {
                    $(Self::$variant(part) => part.collect_devices(devices),)+
                }
            }

            fn fork(self, device: &burn::tensor::Device) -> Self {
                match self {
                    $(Self::$variant(part) => Self::$variant(part.fork(device)),)+
                }
            }

            fn to_device(self, device: &burn::tensor::Device) -> Self {
                match self {
                    $(Self::$variant(part) => Self::$variant(part.to_device(device)),)+
                }
            }

            fn train(self) -> Self {
                match self {
                    $(Self::$variant(part) => Self::$variant(part.train()),)+
                }
            }

            fn valid(&self) -> Self {
                match self {
                    $(Self::$variant(part) => Self::$variant(part.valid()),)+
                }
            }

            fn materialize(self) -> Self {
                match self {
                    $(Self::$variant(part) => Self::$variant(part.materialize()),)+
                }
            }
        }

        impl burn::module::ModuleDisplayDefault for $module {
            fn content(&self, content: burn::module::Content) -> Option<burn::module::Content> {
                match self {
                    $(Self::$variant(part) => {
                        burn::module::ModuleDisplayDefault::content(part, content)
                    })+
                }
            }

            fn num_params(&self) -> usize {
                burn::module::Module::num_params(self)
            }
        }

        impl burn::module::ModuleDisplay for $module {}
    };
}
pub(crate) use one_of;

/// Shows a module by its parts.
macro_rules! displayed {
    ($module:ident) => {
        impl burn::module::ModuleDisplayDefault for $module {
            fn content(&self, content: burn::module::Content) -> Option<burn::module::Content> {
                let content = content.set_top_level_type(stringify!($module));
                $crate::decoder::parts::Shown::show(self, content).optional()
            }

            fn num_params(&self) -> usize {
                burn::module::Module::num_params(self)
            }
        }

        impl burn::module::ModuleDisplay for $module {}

        impl std::fmt::Display for $module {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                let settings = burn::module::DisplaySettings::default();
                f.write_str(&burn::module::ModuleDisplay::format(self, settings))
            }
        }
    };
}
pub(crate) use displayed;
