//! What a pickle holds: values in one arena, referred to by number, so that sharing and cycles cost nothing and nothing recurses.

use std::collections::BTreeSet;

/// A value's place in the [`Heap`].
pub(crate) type Id = u32;

/// A Python value, as far as weights need to know it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    /// `None`.
    None,
    /// `True` or `False`.
    Bool(bool),
    /// A whole number of up to 64 bits.
    Int(i64),
    /// A longer whole number, as little-endian bytes in two's complement.
    Long(Vec<u8>),
    /// A float.
    Float(f64),
    /// A string.
    Text(Box<str>),
    /// Bytes, whatever they mean.
    Bytes,
    /// A list, or a set.
    List(Vec<Id>),
    /// A tuple.
    Tuple(Vec<Id>),
    /// A dictionary, in order; a later entry of the same key wins.
    Dict(Vec<(Id, Id)>),
    /// The name of a class or function, `module.name`. It is never looked up.
    Global(Box<str>),
    /// What calling `callable` with `args` would give. It is never called; items that are put into it are kept.
    Call { callable: Id, args: Id, items: Vec<(Id, Id)> },
    /// What the file keeps outside of the pickle: in PyTorch's, a storage.
    Persistent(Id),
}

/// All values of a pickle, and which of them it is.
#[derive(Clone, Debug)]
pub(crate) struct Heap {
    pub(super) values: Vec<Value>,
    pub(super) root: Id,
    /// Names of what the pickle would call, in order.
    pub(crate) called: BTreeSet<String>,
}

impl Heap {
    /// The value that the pickle is.
    pub(crate) fn root(&self) -> Id {
        self.root
    }

    /// Every value.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Value> {
        self.values.iter()
    }

    /// A value by its place.
    pub(crate) fn get(&self, id: Id) -> &Value {
        self.values.get(id as usize).unwrap_or(&Value::None)
    }

    /// A string's text.
    pub(crate) fn text(&self, id: Id) -> Option<&str> {
        match self.get(id) {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// A whole number that is not negative.
    pub(crate) fn size(&self, id: Id) -> Option<usize> {
        match self.get(id) {
            Value::Int(value) => usize::try_from(*value).ok(),
            _ => None,
        }
    }

    /// The elements of a tuple or a list.
    pub(crate) fn elements(&self, id: Id) -> Option<&[Id]> {
        match self.get(id) {
            Value::Tuple(all) | Value::List(all) => Some(all),
            _ => None,
        }
    }

    /// The entries of a dictionary, or of an object that is one with something added.
    pub(crate) fn entries(&self, id: Id) -> Option<&[(Id, Id)]> {
        match self.get(id) {
            Value::Dict(entries) => Some(entries),
            Value::Call { items, .. } if !items.is_empty() => Some(items),
            _ => None,
        }
    }

    /// The entry of a dictionary under a text.
    pub(crate) fn entry(&self, id: Id, key: &str) -> Option<Id> {
        let entries = self.entries(id)?;
        entries.iter().rev().find(|(name, _)| self.text(*name) == Some(key)).map(|(_, value)| *value)
    }

    /// `module.name` of a global.
    pub(crate) fn global(&self, id: Id) -> Option<&str> {
        match self.get(id) {
            Value::Global(name) => Some(name),
            _ => None,
        }
    }

    /// What a value is, in a word or two, for a message.
    pub(crate) fn describe(&self, id: Id) -> String {
        match self.get(id) {
            Value::None => "None".into(),
            Value::Bool(_) => "a truth value".into(),
            Value::Int(_) | Value::Long(_) | Value::Float(_) => "a number".into(),
            Value::Text(_) => "a text".into(),
            Value::Bytes => "bytes".into(),
            Value::List(_) | Value::Tuple(_) => "a list".into(),
            Value::Dict(_) => "a dictionary".into(),
            Value::Global(name) => format!("the name {name}"),
            Value::Call { callable, .. } => match self.global(*callable) {
                Some(name) => format!("an object of {name}"),
                None => "an object".into(),
            },
            Value::Persistent(_) => "a storage without a shape".into(),
        }
    }
}
