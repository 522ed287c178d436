//! The published forms of LARS, by name.

use std::fmt;

use diptych_kernels::optimizer::Ratio;
use serde::de::{self, Deserialize, Deserializer, SeqAccess, Visitor};
use serde::ser::{Serialize, SerializeSeq, Serializer};

/// How a form of LARS differs from the official Barlow Twins code; the default differs in nothing.
///
/// In a recipe: `variant = "official"`, one name, or a list of names, such as solo-learn's `["bolts", "clip"]`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Variant {
    /// `"bolts"`: `q = eta |w| / (|g| + wd |w| + 1e-8)`; where a norm is zero, neither ratio nor decay (Lightning Bolts,
    /// lightly, solo-learn).
    pub bolts: bool,
    /// `"clip"`: q becomes `min(q / lr, 1)` (LARC, solo-learn's `clip_lr`).
    pub clip: bool,
    /// `"lr_in_momentum"`: `b = mu b + lr q dp; w -= b` (SimCLR's official code).
    pub lr_in_momentum: bool,
}

const OFFICIAL: &str = "official";
const NAMES: &[&str] = &[OFFICIAL, "bolts", "clip", "lr_in_momentum"];

impl Variant {
    /// The norm that the ratio divides by.
    pub(crate) fn ratio(self) -> Ratio {
        if self.bolts { Ratio::Sum } else { Ratio::Joint }
    }

    /// The names that differ from the official code; empty for itself.
    fn names(self) -> impl Iterator<Item = &'static str> {
        let set = [self.bolts, self.clip, self.lr_in_momentum];
        NAMES[1..].iter().zip(set).filter(|(_, set)| *set).map(|(name, _)| *name)
    }

    fn add<E: de::Error>(&mut self, name: &str) -> Result<(), E> {
        match name {
            OFFICIAL => (),
            "bolts" => self.bolts = true,
            "clip" => self.clip = true,
            "lr_in_momentum" => self.lr_in_momentum = true,
            other => return Err(E::unknown_variant(other, NAMES)),
        }
        Ok(())
    }
}

impl fmt::Display for Variant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.names().collect();
        f.write_str(if names.is_empty() { OFFICIAL.to_string() } else { names.join(" + ") }.as_str())
    }
}

impl Serialize for Variant {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let names: Vec<_> = self.names().collect();
        match names.as_slice() {
            [] => serializer.serialize_str(OFFICIAL),
            [one] => serializer.serialize_str(one),
            many => {
                let mut list = serializer.serialize_seq(Some(many.len()))?;
                many.iter().try_for_each(|name| list.serialize_element(name))?;
                list.end()
            }
        }
    }
}

impl<'de> Deserialize<'de> for Variant {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Names;
        impl<'de> Visitor<'de> for Names {
            type Value = Variant;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name or a list of names")
            }

            fn visit_str<E: de::Error>(self, name: &str) -> Result<Variant, E> {
                let mut variant = Variant::default();
                variant.add(name)?;
                Ok(variant)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Variant, A::Error> {
                let mut variant = Variant::default();
                while let Some(name) = list.next_element::<String>()? {
                    variant.add(&name)?;
                }
                Ok(variant)
            }
        }
        deserializer.deserialize_any(Names)
    }
}
