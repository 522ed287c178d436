//! The page of embedded images: a map with pictures, and nearest neighbors.

use super::gallery::{self, Words};
use super::map;
use super::model::{Map, Query, ReportData};
use super::page::{card, frame, table, title};

/// What the page of embedded images shows.
#[derive(Clone, Debug, Default)]
pub struct Gallery {
    /// What was embedded, and by what.
    pub title: String,
    /// Key numbers: (name, number, a note below it or nothing).
    pub cards: Vec<(String, String, String)>,
    /// Facts, as rows of a table.
    pub facts: Vec<(String, String)>,
    /// Class names by label; empty without labels.
    pub class_names: Vec<String>,
    /// Images with their nearest neighbors among all.
    pub neighbors: Vec<Query>,
    /// The map.
    pub map: Option<Map>,
}

/// The page, as HTML text of less than 5 MB: self-contained, without scripts.
pub fn gallery(gallery: &Gallery) -> String {
    let data = ReportData {
        class_names: gallery.class_names.clone(),
        neighbors: gallery.neighbors.clone(),
        map: gallery.map.clone(),
        ..ReportData::default()
    };
    let cards: String =
        gallery.cards.iter().take(12).map(|(name, number, note)| card("", name, number, note)).collect();
    let map = map::section(&data);
    let words = Words {
        asked: "image",
        lead: "An image, and the others whose features are most like its own (cosine similarity), nearest first.",
        most: 24,
    };
    let facts = table("Features", &gallery.facts);
    let facts = if facts.is_empty() {
        facts
    } else {
        format!("<section id=\"run\"><h2>Features</h2>\n<div class=\"tables\">{facts}</div></section>\n")
    };
    let cards = if cards.is_empty() { cards } else { format!("<div class=\"cards\">\n{cards}</div>\n") };
    let body = title(&gallery.title) + &cards + &map.html + &gallery::neighbors(&data, &words) + &facts;
    let note = "Written by Diptych. This page is one file: it needs no network and runs no script.";
    frame(&gallery.title, &body, note, &map.css)
}
