//! Reading and writing JSON objects so that nothing in them is lost.

use std::{borrow::Cow, fmt};

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, MapAccess, Visitor},
    ser::SerializeMap,
};
use serde_json::value::RawValue;

use crate::error::LlmError;

/// The members of a JSON object that the vocabulary has no name for, as they came.
///
/// Values keep their exact text: numbers keep their digits, objects keep the order of their keys.
#[derive(Clone, Default)]
pub struct Extra {
    fields: Vec<(Box<str>, Box<RawValue>)>,
}

impl Extra {
    /// No extra members.
    pub const fn new() -> Self {
        Self { fields: Vec::new() }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.fields.len()
    }

    /// The value under `name`, as JSON text.
    pub fn get(&self, name: &str) -> Option<&RawValue> {
        self.fields
            .iter()
            .find(|(key, _)| &**key == name)
            .map(|(_, value)| &**value)
    }

    /// The value under `name`, read as a `T`; `None` if it is absent or of another shape.
    pub fn read<'a, T: Deserialize<'a>>(&'a self, name: &str) -> Option<T> {
        self.get(name)
            .and_then(|raw| serde_json::from_str(raw.get()).ok())
    }

    /// Sets the value under `name`.
    pub fn insert(&mut self, name: impl Into<Box<str>>, value: Box<RawValue>) {
        let name = name.into();
        match self.fields.iter_mut().find(|(key, _)| *key == name) {
            Some((_, old)) => *old = value,
            None => self.fields.push((name, value)),
        }
    }

    /// Adds a member that was read; call [`settle`](Self::settle) when all are.
    pub(crate) fn push(&mut self, name: impl Into<Box<str>>, value: Box<RawValue>) {
        self.fields.push((name.into(), value));
    }

    /// Of members that came twice the last one counts. Linear, since who sends many members would
    /// otherwise decide how long they take.
    pub(crate) fn settle(&mut self) {
        if self.fields.len() < 2 {
            return;
        }
        let mut seen = std::collections::HashSet::with_capacity(self.fields.len());
        let mut twice = Vec::new();
        for (at, (name, _)) in self.fields.iter().enumerate().rev() {
            if !seen.insert(&**name) {
                twice.push(at);
            }
        }
        if twice.is_empty() {
            return;
        }
        let mut at = 0;
        self.fields.retain(|_| {
            let keep = twice.last() != Some(&at);
            if !keep {
                twice.pop();
            }
            at += 1;
            keep
        });
    }

    /// Takes the value under `name` out.
    pub fn remove(&mut self, name: &str) -> Option<Box<RawValue>> {
        let at = self.fields.iter().position(|(key, _)| &**key == name)?;
        Some(self.fields.remove(at).1)
    }

    /// Takes the member `name` out and reads it as a `T`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidRequest`](crate::ErrorKind::InvalidRequest), which names the member, if
    /// it has another shape.
    pub fn take<T: de::DeserializeOwned>(&mut self, name: &str) -> Result<Option<T>, LlmError> {
        match self.remove(name) {
            None => Ok(None),
            Some(raw) => serde_json::from_str(raw.get())
                .map(Some)
                .map_err(|error| LlmError::invalid_field(name, &error.to_string())),
        }
    }

    /// Whether any member is more than what a provider fills in where it has nothing to say.
    pub(crate) fn shows_something(&self) -> bool {
        let blank = ["null", "\"\"", "[]", "{}", "false"];
        self.fields
            .iter()
            .any(|(_, value)| !blank.contains(&value.get()))
    }

    /// Every member in the order in which it came.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &RawValue)> {
        self.fields.iter().map(|(key, value)| (&**key, &**value))
    }

    pub(crate) fn write<M: SerializeMap>(&self, map: &mut M) -> Result<(), M::Error> {
        self.write_but(map, "")
    }

    /// Writes all but the member `name`.
    pub(crate) fn write_but<M: SerializeMap>(
        &self,
        map: &mut M,
        name: &str,
    ) -> Result<(), M::Error> {
        for (key, value) in self.fields.iter().filter(|(key, _)| &**key != name) {
            map.serialize_entry(&**key, &**value)?;
        }
        Ok(())
    }
}

impl fmt::Debug for Extra {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Values may hold what the caller wrote; only their names are printed.
        f.debug_set()
            .entries(self.fields.iter().map(|(key, _)| key))
            .finish()
    }
}

impl Serialize for Extra {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.fields.len()))?;
        self.write(&mut map)?;
        map.end()
    }
}

impl<'de> Deserialize<'de> for Extra {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = Extra;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Extra, A::Error> {
                let mut extra = Extra::new();
                while let Some(Key(key)) = map.next_key()? {
                    extra.push(key, map.next_value()?);
                }
                extra.settle();
                Ok(extra)
            }
        }
        deserializer.deserialize_map(Fields)
    }
}

/// A member's name, borrowed from the input where it has no escapes.
pub(crate) struct Key<'a>(pub(crate) Cow<'a, str>);

impl<'de> Deserialize<'de> for Key<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl<'de> Visitor<'de> for Text {
            type Value = Key<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }
            fn visit_borrowed_str<E: de::Error>(self, v: &'de str) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Borrowed(v)))
            }
            fn visit_str<E: de::Error>(self, v: &str) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Owned(v.to_owned())))
            }
            fn visit_string<E: de::Error>(self, v: String) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Owned(v)))
            }
        }
        deserializer.deserialize_str(Text)
    }
}

/// A value that does not make what holds it unreadable when it is odd: then it is not there.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Lenient<T>(pub(crate) Option<T>);

impl<'de, T: de::DeserializeOwned> Deserialize<'de> for Lenient<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = Option::<Box<RawValue>>::deserialize(deserializer)?;
        Ok(Self(
            raw.and_then(|raw| serde_json::from_str(raw.get()).ok()),
        ))
    }
}

impl<T: Serialize> Serialize for Lenient<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

/// Seconds since 1970; some compatible servers send them with a fraction.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "`as` saturates; seconds before 1970 become 0"
)]
pub(crate) fn whole_seconds(seconds: f64) -> u64 {
    seconds as u64
}

/// A value that is left out of the JSON when it says nothing.
pub(crate) trait Member {
    fn says_nothing(&self) -> bool;
}

impl<T> Member for Option<T> {
    fn says_nothing(&self) -> bool {
        self.is_none()
    }
}

impl<T> Member for Lenient<T> {
    fn says_nothing(&self) -> bool {
        self.0.is_none()
    }
}

impl<T> Member for Vec<T> {
    fn says_nothing(&self) -> bool {
        self.is_empty()
    }
}

impl<T> Member for std::sync::Arc<[T]> {
    fn says_nothing(&self) -> bool {
        self.is_empty()
    }
}

/// Declares a struct that reads a JSON object, keeps the members it has no name for in its
/// `extra`, and writes both out again. All of them are part of its canonical form. `=> required` marks a member that must be there; any other may be absent or
/// `null`, and is left out when it says nothing.
macro_rules! json_object {
    (
        $(#[$meta:meta])*
        $vis:vis struct $name:ident {
            $(
                $(#[$fmeta:meta])*
                pub $field:ident : $ty:ty = $key:literal $(| $alias:literal)* $(=> $req:ident)?
            ),* $(,)?
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Debug)]
        #[non_exhaustive]
        $vis struct $name {
            $( $(#[$fmeta])* pub $field: $ty, )*
            /// Every member that has no field here, as it came.
            pub extra: $crate::vocab::json::Extra,
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Fields;
                impl<'de> serde::de::Visitor<'de> for Fields {
                    type Value = $name;
                    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                        f.write_str("an object")
                    }
                    fn visit_map<A: serde::de::MapAccess<'de>>(
                        self,
                        mut map: A,
                    ) -> Result<$name, A::Error> {
                        $( let mut $field: Option<$ty> = None; )*
                        let mut extra = $crate::vocab::json::Extra::new();
                        while let Some($crate::vocab::json::Key(key)) = map.next_key()? {
                            match &*key {
                                $( $key $(| $alias)* => {
                                    json_object!(@read map $field $ty, $($req)?);
                                } )*
                                _ => extra.push(key, map.next_value()?),
                            }
                        }
                        extra.settle();
                        Ok($name {
                            $( $field: json_object!(@take $field $key, $($req)?), )*
                            extra,
                        })
                    }
                }
                deserializer.deserialize_map(Fields)
            }
        }

        impl $name {
            pub(crate) fn write_members<M: serde::ser::SerializeMap>(
                &self,
                map: &mut M,
            ) -> Result<(), M::Error> {
                $( json_object!(@write self map $field $key, $($req)?); )*
                self.extra.write(map)
            }
        }

        impl $crate::vocab::canonical::Canonical for $name {
            fn write(&self, to: &mut $crate::vocab::canonical::Writer<'_>) {
                $( json_object!(@canonical self to $field $key, $($req)?); )*
                to.extra(&self.extra, &[]);
                to.end();
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let mut map = serializer.serialize_map(None)?;
                self.write_members(&mut map)?;
                serde::ser::SerializeMap::end(map)
            }
        }
    };
    (@read $map:ident $field:ident $ty:ty, required) => { $field = Some($map.next_value()?) };
    (@read $map:ident $field:ident $ty:ty,) => {
        if let Some(value) = $map.next_value::<Option<$ty>>()? {
            $field = Some(value);
        }
    };
    (@take $field:ident $key:literal, required) => {
        $field.ok_or_else(|| serde::de::Error::missing_field($key))?
    };
    (@take $field:ident $key:literal,) => { $field.unwrap_or_default() };
    (@canonical $self:ident $to:ident $field:ident $key:literal, required) => {
        $to.member($key, &$self.$field)
    };
    (@canonical $self:ident $to:ident $field:ident $key:literal,) => {
        if !$crate::vocab::json::Member::says_nothing(&$self.$field) {
            $to.member($key, &$self.$field);
        }
    };
    (@write $self:ident $map:ident $field:ident $key:literal, required) => {
        $map.serialize_entry($key, &$self.$field)?
    };
    (@write $self:ident $map:ident $field:ident $key:literal,) => {
        if !$crate::vocab::json::Member::says_nothing(&$self.$field) {
            $map.serialize_entry($key, &$self.$field)?;
        }
    };
}
pub(crate) use json_object;

/// Declares an enum of the words that a JSON string may be, with any other kept as it came.
macro_rules! json_words {
    (
        $(#[$meta:meta])*
        pub enum $name:ident { $( $(#[$vmeta:meta])* $variant:ident = $word:literal ),* $(,)? }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum $name {
            $( $(#[$vmeta])* $variant, )*
            /// A word that is not known here, kept as it came.
            Other(Box<str>),
        }

        impl $name {
            /// The word as it is written in JSON.
            pub fn as_str(&self) -> &str {
                match self {
                    $( Self::$variant => $word, )*
                    Self::Other(word) => word,
                }
            }
        }

        impl From<&str> for $name {
            fn from(word: &str) -> Self {
                match word {
                    $( $word => Self::$variant, )*
                    other => Self::Other(other.into()),
                }
            }
        }

        impl $crate::vocab::canonical::Canonical for $name {
            fn write(&self, to: &mut $crate::vocab::canonical::Writer<'_>) {
                to.text(self.as_str());
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let $crate::vocab::json::Key(word) = serde::Deserialize::deserialize(deserializer)?;
                Ok(Self::from(&*word))
            }
        }
    };
}
pub(crate) use json_words;
