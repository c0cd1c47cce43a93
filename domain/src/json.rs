//! Reads values from parsed JSON. The browser decodes with this instead of with
//! serde's visitors, which are many times as much code for it to load;
//! protocol/tests/browser.rs holds the two to the same answers.

use std::collections::BTreeMap;

use serde_json::{Map, Value};
use uuid::Uuid;

/// What can be read from JSON.
pub trait FromJson: Sized {
    /// The value; none if the JSON is something else.
    fn from_json(json: Value) -> Option<Self>;

    /// What it is where its field is left out; none if it has to be there.
    #[must_use]
    fn absent() -> Option<Self> {
        None
    }

    /// The value that the text stands for; none if it is something else.
    #[must_use]
    fn from_text(text: &str) -> Option<Self> {
        Self::from_json(parse(text)?)
    }
}

/// One parser for every type.
#[inline(never)]
fn parse(text: &str) -> Option<Value> {
    serde_json::from_str(text).ok()
}

/// The fields of one object, to be taken one by one.
#[derive(Debug)]
pub struct Fields(Map<String, Value>);

impl Fields {
    /// None if it is no object.
    #[must_use]
    pub fn of(json: Value) -> Option<Self> {
        match json {
            Value::Object(map) => Some(Self(map)),
            _ => None,
        }
    }

    #[inline(never)]
    fn pull(&mut self, name: &str) -> Option<Value> {
        self.0.remove(name)
    }

    /// The field's value; none if it is wrong, or missing where it has to be there.
    #[inline(never)]
    pub fn take<T: FromJson>(&mut self, name: &str) -> Option<T> {
        match self.pull(name) {
            Some(json) => T::from_json(json),
            None => T::absent(),
        }
    }

    /// What is written among these fields without an object of its own: the
    /// fields that were not taken yet.
    pub fn rest<T: FromJson>(&mut self) -> Option<T> {
        T::from_json(Value::Object(std::mem::take(&mut self.0)))
    }
}

/// Takes the fields of a struct, or of an enum's variant: `name` by its name,
/// `name ["other"]` by another, `name [?]` with a default, `name [= 1]` with that
/// one, `name [*]` from the fields that are left.
#[macro_export]
macro_rules! take_fields {
    (@one $fields:ident $name:ident) => { $fields.take(stringify!($name))? };
    (@one $fields:ident $name:ident ?) => {
        $fields.take::<Option<_>>(stringify!($name))?.unwrap_or_default()
    };
    (@one $fields:ident $name:ident *) => { $fields.rest()? };
    (@one $fields:ident $name:ident = $default:expr) => {
        $fields.take::<Option<_>>(stringify!($name))?.unwrap_or($default)
    };
    (@one $fields:ident $name:ident $other:literal) => { $fields.take($other)? };
    ($fields:ident => $type:ident $(:: $variant:ident)? {
        $($name:ident $([$($how:tt)+])?),* $(,)?
    }) => {
        $type $(:: $variant)? { $($name: $crate::take_fields!(@one $fields $name $($($how)+)?)),* }
    };
}

/// [`FromJson`] for a struct; see [`take_fields`] for how each field is told.
#[macro_export]
macro_rules! from_fields {
    ($type:ident { $($names:tt)* }) => {
        impl $crate::FromJson for $type {
            fn from_json(json: serde_json::Value) -> Option<Self> {
                let mut fields = $crate::Fields::of(json)?;
                Some($crate::take_fields!(fields => $type { $($names)* }))
            }
        }
    };
}

/// [`FromJson`] for an enum whose variant stands in the field `type`.
#[macro_export]
macro_rules! from_type {
    ($type:ident { $($word:literal => $variant:ident { $($names:tt)* }),+ $(,)? }) => {
        impl $crate::FromJson for $type {
            fn from_json(json: serde_json::Value) -> Option<Self> {
                let mut fields = $crate::Fields::of(json)?;
                let word: String = fields.take("type")?;
                Some(match word.as_str() {
                    $($word => {
                        $crate::take_fields!(fields => $type::$variant { $($names)* })
                    })+
                    _ => return None,
                })
            }
        }
    };
}

/// [`FromJson`] for an enum of words.
#[macro_export]
macro_rules! from_word {
    ($type:ident { $($word:literal => $variant:ident),+ $(,)? }) => {
        impl $crate::FromJson for $type {
            fn from_json(json: serde_json::Value) -> Option<Self> {
                match json.as_str()? {
                    $($word => Some(Self::$variant),)+
                    _ => None,
                }
            }
        }
    };
}

impl FromJson for Value {
    fn from_json(json: Value) -> Option<Self> {
        Some(json)
    }
}

impl FromJson for () {
    fn from_json(json: Value) -> Option<Self> {
        json.is_null().then_some(())
    }
}

impl FromJson for bool {
    fn from_json(json: Value) -> Option<Self> {
        json.as_bool()
    }
}

impl FromJson for String {
    fn from_json(json: Value) -> Option<Self> {
        match json {
            Value::String(text) => Some(text),
            _ => None,
        }
    }
}

impl FromJson for u64 {
    /// A key is a number in a string.
    fn from_json(json: Value) -> Option<Self> {
        match json {
            Value::String(key) => key.parse().ok(),
            number => number.as_u64(),
        }
    }
}

impl FromJson for u32 {
    fn from_json(json: Value) -> Option<Self> {
        u64::from_json(json)?.try_into().ok()
    }
}

impl FromJson for usize {
    fn from_json(json: Value) -> Option<Self> {
        u64::from_json(json)?.try_into().ok()
    }
}

impl FromJson for Uuid {
    fn from_json(json: Value) -> Option<Self> {
        Self::parse_str(json.as_str()?).ok()
    }
}

impl<T: FromJson> FromJson for Option<T> {
    fn from_json(json: Value) -> Option<Self> {
        match json {
            Value::Null => Some(None),
            json => T::from_json(json).map(Some),
        }
    }

    fn absent() -> Option<Self> {
        Some(None)
    }
}

impl<T: FromJson> FromJson for Box<T> {
    fn from_json(json: Value) -> Option<Self> {
        T::from_json(json).map(Self::new)
    }
}

impl<T: FromJson> FromJson for Vec<T> {
    fn from_json(json: Value) -> Option<Self> {
        match json {
            Value::Array(items) => items.into_iter().map(T::from_json).collect(),
            _ => None,
        }
    }
}

impl<K: FromJson + Ord, V: FromJson> FromJson for BTreeMap<K, V> {
    fn from_json(json: Value) -> Option<Self> {
        let Value::Object(map) = json else { return None };
        let mut read = Self::new();
        for (key, value) in map {
            read.insert(K::from_json(Value::String(key))?, V::from_json(value)?);
        }
        Some(read)
    }
}

impl<T: FromJson, E: FromJson> FromJson for Result<T, E> {
    fn from_json(json: Value) -> Option<Self> {
        let mut fields = Fields::of(json)?;
        match fields.pull("Ok") {
            Some(json) => T::from_json(json).map(Ok),
            None => fields.take("Err").map(Err),
        }
    }
}
