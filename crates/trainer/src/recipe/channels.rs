//! `data.channels` in a file: a word or a number.

use diptych_augment::MAX_CHANNELS;
use diptych_data::Channels;
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serializer};

pub(super) fn serialize<S: Serializer>(channels: &Channels, serializer: S) -> Result<S::Ok, S::Error> {
    match channels {
        Channels::Auto => serializer.serialize_str("auto"),
        Channels::Rgb => serializer.serialize_str("rgb"),
        Channels::Stored(count) => serializer.serialize_u64(*count as u64),
    }
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Channels, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written {
        Word(String),
        Count(i64),
        Other(toml::Value),
    }
    let expected = format!("expected \"auto\", \"rgb\" or a number of channels, 1 to {MAX_CHANNELS}");
    match Written::deserialize(deserializer)? {
        Written::Word(word) if word == "auto" => Ok(Channels::Auto),
        Written::Word(word) if word == "rgb" => Ok(Channels::Rgb),
        Written::Count(count) if (1..=MAX_CHANNELS as i64).contains(&count) => Ok(Channels::Stored(count as usize)),
        Written::Word(word) => Err(Error::custom(format!("\"{word}\": {expected}"))),
        Written::Count(count) => Err(Error::custom(format!("{count}: {expected}"))),
        Written::Other(value) => Err(Error::custom(format!("{value}: {expected}"))),
    }
}
