//! How a family declares the fields of its `config.json`: a name, a type and the default of Transformers for each.

use serde_json::{Map, Value};

use super::fields::Fields;
use crate::activation::Activation;

/// The type of a field.
pub(crate) trait Field: Sized {
    /// The value in the file; the default where the file does not say.
    fn read(fields: &mut Fields<'_>, name: &'static str, default: Self) -> Self;

    fn write(&self) -> Value;

    /// Why no model can have this value.
    fn fault(&self) -> Option<&'static str> {
        None
    }
}

/// No size of a model comes near it, and the product of two does not overflow.
const LARGEST: usize = 1 << 31;

impl Field for usize {
    fn read(fields: &mut Fields<'_>, name: &'static str, default: Self) -> Self {
        fields.size(name).unwrap_or(default)
    }

    fn write(&self) -> Value {
        (*self).into()
    }

    fn fault(&self) -> Option<&'static str> {
        match *self {
            0 => Some("is 0"),
            size if size > LARGEST => Some("is beyond all models"),
            _ => None,
        }
    }
}

impl Field for f64 {
    fn read(fields: &mut Fields<'_>, name: &'static str, default: Self) -> Self {
        fields.number(name, default)
    }

    fn write(&self) -> Value {
        (*self).into()
    }

    fn fault(&self) -> Option<&'static str> {
        let is_size = self.is_finite() && *self >= 0.0;
        (!is_size).then_some("is negative or not finite")
    }
}

impl Field for bool {
    fn read(fields: &mut Fields<'_>, name: &'static str, default: Self) -> Self {
        fields.flag(name, default)
    }

    fn write(&self) -> Value {
        (*self).into()
    }
}

/// Absent is the default, null is none.
fn optional<T>(
    fields: &mut Fields<'_>,
    name: &'static str,
    default: Option<T>,
    read: impl FnOnce(&mut Fields<'_>) -> Option<T>,
) -> Option<T> {
    match fields.has(name) {
        true => read(fields),
        false => default,
    }
}

impl Field for Option<usize> {
    fn read(fields: &mut Fields<'_>, name: &'static str, default: Self) -> Self {
        optional(fields, name, default, |fields| fields.size(name))
    }

    fn write(&self) -> Value {
        (*self).into()
    }
}

impl Field for Option<f64> {
    fn read(fields: &mut Fields<'_>, name: &'static str, default: Self) -> Self {
        optional(fields, name, default, |fields| {
            fields.value(name)?;
            Some(fields.number(name, 0.0))
        })
    }

    fn write(&self) -> Value {
        (*self).into()
    }

    fn fault(&self) -> Option<&'static str> {
        let is_wrong = |number: f64| !(number.is_finite() && number > 0.0);
        self.is_some_and(is_wrong)
            .then_some("is not a positive number")
    }
}

impl Field for Vec<usize> {
    fn read(fields: &mut Fields<'_>, name: &'static str, default: Self) -> Self {
        let read = |value: &Value| {
            let values = value.as_array()?.iter();
            values
                .map(|value| value.as_u64().and_then(|n| n.try_into().ok()))
                .collect()
        };
        let list = fields.typed(name, "a list of whole numbers", read);
        list.unwrap_or(default)
    }

    fn write(&self) -> Value {
        self.clone().into()
    }
}

impl Field for Activation {
    fn read(fields: &mut Fields<'_>, name: &'static str, default: Self) -> Self {
        let found = fields.text(name, default.name());
        Self::from_name(&found).unwrap_or_else(|| {
            let known = Self::known();
            fields.refuse(format!("`{name}` is `{found}`; built are {known}"));
            default
        })
    }

    fn write(&self) -> Value {
        self.name().into()
    }
}

/// The attention of a layer, as `layer_types` has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LayerType {
    /// A token sees all before it.
    Full,
    /// A token sees those in the sliding window.
    Sliding,
}

const LAYER_TYPES: [(&str, LayerType); 2] = [
    ("full_attention", LayerType::Full),
    ("sliding_attention", LayerType::Sliding),
];

impl Field for Option<Vec<LayerType>> {
    fn read(fields: &mut Fields<'_>, name: &'static str, default: Self) -> Self {
        let read = |value: &Value| {
            let one = |value: &Value| {
                let known = LAYER_TYPES.iter().find(|(name, _)| value == name);
                known.map(|(_, layer)| *layer)
            };
            value.as_array()?.iter().map(one).collect()
        };
        let kind = "a list of `full_attention` and `sliding_attention`";
        optional(fields, name, default, |fields| {
            fields.typed(name, kind, read)
        })
    }

    fn write(&self) -> Value {
        let name = |layer: &LayerType| {
            let known = LAYER_TYPES.iter().find(|(_, known)| known == layer);
            known.map_or(Value::Null, |(name, _)| (*name).into())
        };
        self.as_ref()
            .map_or(Value::Null, |layers| layers.iter().map(name).collect())
    }
}

/// A configuration whose fields are declared by [`schema!`].
pub(crate) trait Schema: Sized {
    fn read(fields: &mut Fields<'_>) -> Self;

    /// Every field, and those of the file that mean nothing here.
    fn write(&self) -> Map<String, Value>;

    /// One line for each field whose value no model can have.
    fn faults(&self) -> Vec<String>;

    fn extra(&mut self) -> &mut Map<String, Value>;
}

/// Declares a configuration: the struct, its defaults, and how it is read and written.
///
/// A default may name the fields before it. A field that is `required` has no default in files: the one here serves
/// `Default` alone.
macro_rules! schema {
    (
        $(#[$meta:meta])*
        pub struct $config:ident {
            $($(#[$field_meta:meta])* $field:ident: $type:ty = $default:expr $(, $required:ident)?;)+
        }
    ) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq)]
        pub struct $config {
            $($(#[$field_meta])* pub $field: $type,)+
            /// The fields of the file that mean nothing here, kept for writing.
            pub extra: serde_json::Map<String, serde_json::Value>,
        }

        impl Default for $config {
            fn default() -> Self {
                $(let $field: $type = $default;)+
                Self {
                    $($field,)+
                    extra: serde_json::Map::new(),
                }
            }
        }

        impl $crate::config::schema::Schema for $config {
            fn read(fields: &mut $crate::config::fields::Fields<'_>) -> Self {
                use $crate::config::schema::Field;
                $(
                    $(fields.$required(stringify!($field));)?
                    let $field = <$type as Field>::read(fields, stringify!($field), $default);
                )+
                Self {
                    $($field,)+
                    extra: fields.rest(),
                }
            }

            fn write(&self) -> serde_json::Map<String, serde_json::Value> {
                use $crate::config::schema::Field;
                let mut map = serde_json::Map::new();
                $(map.insert(stringify!($field).to_owned(), self.$field.write());)+
                for (name, value) in &self.extra {
                    map.entry(name.clone()).or_insert_with(|| value.clone());
                }
                map
            }

            fn faults(&self) -> Vec<String> {
                use $crate::config::schema::Field;
                let mut faults = Vec::new();
                $(
                    if let Some(fault) = self.$field.fault() {
                        faults.push(format!("`{}` {fault}", stringify!($field)));
                    }
                )+
                faults
            }

            fn extra(&mut self) -> &mut serde_json::Map<String, serde_json::Value> {
                &mut self.extra
            }
        }
    };
}
pub(crate) use schema;
