//! Modules made of others that carry their own names.

/// Makes a struct a module that adds no step to the paths of its fields: they carry their own names. Fields after
/// `with` are data.
macro_rules! unnamed_module {
    ($module:ident $(<$kind:ident: $bound:path>)? { $($field:ident),+ $(,)? } $(with { $($data:ident),+ $(,)? })?) => {
        impl $(<$kind: $bound>)? burn::module::Module for $module $(<$kind>)? {
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

        impl $(<$kind: $bound>)? $crate::named::Shown for $module $(<$kind>)? {
            fn show(&self, content: burn::module::Content) -> burn::module::Content {
                $(let content = $crate::named::Shown::show(&self.$field, content);)+
                content
            }
        }

        impl $(<$kind: $bound>)? burn::module::ModuleDisplayDefault
            for $module $(<$kind>)?
        {
            fn content(&self, content: burn::module::Content) -> Option<burn::module::Content> {
                let content = content.set_top_level_type(stringify!($module));
                $crate::named::Shown::show(self, content).optional()
            }

            fn num_params(&self) -> usize {
                burn::module::Module::num_params(self)
            }
        }

        impl $(<$kind: $bound>)? burn::module::ModuleDisplay
            for $module $(<$kind>)?
        {}

        impl $(<$kind: $bound>)? std::fmt::Display for $module $(<$kind>)? {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                let settings = burn::module::DisplaySettings::default();
                f.write_str(&burn::module::ModuleDisplay::format(self, settings))
            }
        }
    };
}
pub(crate) use unnamed_module;

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
