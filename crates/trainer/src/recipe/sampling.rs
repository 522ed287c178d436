//! `data.sampling` in a file: a word.

use diptych_data::Sampling;
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serializer};

pub(super) fn serialize<S: Serializer>(sampling: &Sampling, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(match sampling {
        Sampling::Shuffled => "shuffled",
        Sampling::Balanced => "balanced",
    })
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Sampling, D::Error> {
    match String::deserialize(deserializer)?.as_str() {
        "shuffled" => Ok(Sampling::Shuffled),
        "balanced" => Ok(Sampling::Balanced),
        other => Err(D::Error::custom(format!("\"{other}\": expected \"shuffled\" or \"balanced\""))),
    }
}
