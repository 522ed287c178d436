//! A short list of numbers, one per channel.

use std::ops::Deref;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::raster::MAX_CHANNELS;

/// One number per channel, for up to [`MAX_CHANNELS`] of them; in a recipe file a list. An empty list means that the numbers are to be measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PerChannel {
    values: [f32; MAX_CHANNELS],
    len: u8,
}

impl PerChannel {
    /// No numbers: they are to be measured.
    pub const MEASURED: Self = Self { values: [0.0; MAX_CHANNELS], len: 0 };

    /// The numbers of `values`; `None` if there are more than [`MAX_CHANNELS`].
    pub fn new(values: &[f32]) -> Option<Self> {
        let mut held = Self { len: u8::try_from(values.len()).ok()?, ..Self::MEASURED };
        held.values.get_mut(..values.len())?.copy_from_slice(values);
        Some(held)
    }

    /// All three numbers, if there are three.
    pub fn rgb(&self) -> Option<[f32; 3]> {
        self.as_ref().try_into().ok()
    }
}

impl From<[f32; 3]> for PerChannel {
    fn from([a, b, c]: [f32; 3]) -> Self {
        let mut held = Self { len: 3, ..Self::MEASURED };
        held.values[..3].copy_from_slice(&[a, b, c]);
        held
    }
}

impl AsRef<[f32]> for PerChannel {
    fn as_ref(&self) -> &[f32] {
        &self.values[..usize::from(self.len)]
    }
}

impl Deref for PerChannel {
    type Target = [f32];
    fn deref(&self) -> &[f32] {
        self.as_ref()
    }
}

impl Serialize for PerChannel {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.as_ref().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for PerChannel {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let values = Vec::<f32>::deserialize(deserializer)?;
        let many = || {
            serde::de::Error::custom(format!(
                "{} numbers: at most {MAX_CHANNELS} are expected, one per channel",
                values.len()
            ))
        };
        Self::new(&values).ok_or_else(many)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize, Deserialize, PartialEq, Debug)]
    struct Table {
        mean: PerChannel,
    }

    #[test]
    fn it_is_a_list_in_text() {
        for (text, values) in [("mean = [0.25, 0.5]\n", vec![0.25, 0.5]), ("mean = []\n", vec![])] {
            let table: Table = toml::from_str(text).unwrap();
            assert_eq!(table.mean.as_ref(), values);
            assert_eq!(toml::to_string(&table).unwrap(), text);
        }
        let long = format!("mean = {:?}", [0.5; 17]);
        let error = toml::from_str::<Table>(&long).unwrap_err().to_string();
        assert!(error.contains("17 numbers: at most 16 are expected, one per channel"), "{error}");
        assert!(PerChannel::new(&[0.0; 16]).is_some());
        assert!(PerChannel::new(&[0.0; 300]).is_none());
    }
}
