//! The parts of BERT in which a name of the checkpoint cannot be that of a field: `self` is no identifier, `LayerNorm`
//! is a type's. The derive makes paths of the names of fields; here the names are written beside the fields.

use std::fmt;

use burn::module::{
    Content, Devices, DisplaySettings, Module, ModuleDisplay, ModuleDisplayDefault, ModuleMapper,
    ModuleVisitor,
};
use burn::tensor::Device;

use crate::bert::{BertAttention, BertEmbeddings, BertOutput};

macro_rules! module {
    ($module:ident { $($field:ident: $name:literal),+ $(,)? }) => {
        impl $module {
            const CONTAINER: &str = concat!("Struct:", stringify!($module));
        }

        impl Module for $module {
            fn visit<Visitor: ModuleVisitor>(&self, visitor: &mut Visitor) {
                $(
                    visitor.enter_module($name, Self::CONTAINER);
                    self.$field.visit(visitor);
                    visitor.exit_module($name, Self::CONTAINER);
                )+
            }

            fn map<Mapper: ModuleMapper>(self, mapper: &mut Mapper) -> Self {
                $(
                    mapper.enter_module($name, Self::CONTAINER);
                    let $field = self.$field.map(mapper);
                    mapper.exit_module($name, Self::CONTAINER);
                )+
                Self { $($field),+ }
            }

            fn collect_devices(&self, devices: Devices) -> Devices {
                $(let devices = self.$field.collect_devices(devices);)+
                devices
            }

            fn fork(self, device: &Device) -> Self {
                Self { $($field: self.$field.fork(device)),+ }
            }

            fn to_device(self, device: &Device) -> Self {
                Self { $($field: self.$field.to_device(device)),+ }
            }

            fn train(self) -> Self {
                Self { $($field: self.$field.train()),+ }
            }

            fn valid(&self) -> Self {
                Self { $($field: self.$field.valid()),+ }
            }

            fn materialize(self) -> Self {
                Self { $($field: self.$field.materialize()),+ }
            }
        }

        impl ModuleDisplayDefault for $module {
            fn content(&self, content: Content) -> Option<Content> {
                content
                    .set_top_level_type(stringify!($module))
                    $(.add($name, &self.$field))+
                    .optional()
            }

            fn num_params(&self) -> usize {
                Module::num_params(self)
            }
        }

        impl ModuleDisplay for $module {}

        impl fmt::Display for $module {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&ModuleDisplay::format(self, DisplaySettings::default()))
            }
        }
    };
}

module!(BertEmbeddings {
    word_embeddings: "word_embeddings",
    position_embeddings: "position_embeddings",
    token_type_embeddings: "token_type_embeddings",
    norm: "LayerNorm",
});

module!(BertAttention {
    heads: "self",
    output: "output",
});

module!(BertOutput {
    dense: "dense",
    norm: "LayerNorm",
});
