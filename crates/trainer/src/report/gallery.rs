//! The picture sections: the views of some images, and the nearest neighbors of some test images.

use super::chart::count;
use super::html::{escape, minus};
use super::model::{Neighbor, Query, ReportData, ViewRow};
use super::page::{class_name, clip};
use super::pictures::{QUALITIES, Quality, img};

/// Bytes of HTML, pictures included, that the two sections may take together.
const BUDGET: usize = 3_000_000;
const MOST_ROWS: usize = 16;
const MOST_VIEWS: usize = 8;
const MOST_NEIGHBORS: usize = 10;

/// What is said of queries: more than a run's report shows are on the page of embedded images.
pub(super) struct Words {
    /// What a query is called.
    pub(super) asked: &'static str,
    /// What is seen, in a sentence.
    pub(super) lead: &'static str,
    /// Queries shown at most.
    pub(super) most: usize,
}

const OF_A_RUN: Words = Words {
    asked: "test image",
    lead: "A test image, which training has never seen, and the training images whose features are most like its own \
           (cosine similarity), nearest first.",
    most: 12,
};

/// Both sections, each empty without pictures, at the best quality that fits the budget.
pub(super) fn sections(data: &ReportData) -> [String; 2] {
    let mut sections = [String::new(), String::new()];
    for quality in QUALITIES {
        sections = [views(data, quality), neighbors_at(data, &OF_A_RUN, quality)];
        if data.images_hidden || sections.iter().map(String::len).sum::<usize>() <= BUDGET {
            break;
        }
    }
    sections
}

const HIDDEN: &str = "<p class=\"hidden\">The recipe says <code>report.images = false</code>: no picture of the data \
                      is in this page.</p>\n";

fn views(data: &ReportData, quality: Quality) -> String {
    let body = if data.images_hidden {
        HIDDEN.to_owned()
    } else if data.views.is_empty() {
        return String::new();
    } else {
        let rows: String = data.views.iter().take(MOST_ROWS).map(|row| view_row(row, quality)).collect();
        format!("<div class=\"rows\">{rows}</div>\n")
    };
    format!(
        "<section id=\"views\"><h2>Views</h2>\n<p class=\"lead\">The task: views of one image shall get like embeddings, \
         views of other images unlike ones. Left of the line stands the image, right of it what the augmentation made \
         of it. You should still see what is in each view, and no color, place or size should give the pair away.</p>\n\
         {body}</section>\n"
    )
}

fn view_row(row: &ViewRow, quality: Quality) -> String {
    let name = clip(&row.name, 100);
    let mut out = String::from("<div class=\"row\">");
    if let Some(original) = &row.original {
        out += &format!("<span class=\"from\">{}</span>", img(original, &format!("image {name}"), quality));
    }
    out += "<div class=\"made\">";
    for (i, view) in row.views.iter().take(MOST_VIEWS).enumerate() {
        out += &img(view, &format!("view {} of {name}", i + 1), quality);
    }
    out + "</div></div>"
}

/// The section of neighbors alone, at the best quality that fits the budget.
pub(super) fn neighbors(data: &ReportData, words: &Words) -> String {
    let mut section = String::new();
    for quality in QUALITIES {
        section = neighbors_at(data, words, quality);
        if section.len() <= BUDGET {
            break;
        }
    }
    section
}

fn neighbors_at(data: &ReportData, words: &Words, quality: Quality) -> String {
    if data.neighbors.is_empty() {
        return String::new();
    }
    let queries = &data.neighbors[..data.neighbors.len().min(words.most)];
    let marks = || queries.iter().flat_map(|query| shown(query).iter().filter_map(|one| is_right(query, one)));
    let (right, marked) = (marks().filter(|right| *right).count(), marks().count());
    let score = if marked > 0 {
        format!(" Here {right} of {} have the right class.", count(marked, "neighbor", "neighbors"))
    } else {
        String::new()
    };
    let (marks, body) = if data.images_hidden {
        (String::new(), HIDDEN.to_owned())
    } else {
        let rows: String = queries.iter().map(|query| query_row(query, data, words, quality)).collect();
        let marks = if marked > 0 { " ✓ marks the same class, ✗ another." } else { "" };
        let look = format!(
            " Look at what the wrong ones share with the {}: that is what the network has learned to see.",
            words.asked
        );
        let look = if marked > 0 { look } else { String::new() };
        (format!("{marks}{look}"), format!("<div class=\"queries\">{rows}</div>\n"))
    };
    format!(
        "<section id=\"neighbors\"><h2>Nearest neighbors</h2>\n<p class=\"lead\">{}{marks}{score}</p>\n\
         {body}</section>\n",
        words.lead
    )
}

fn shown(query: &Query) -> &[Neighbor] {
    &query.neighbors[..query.neighbors.len().min(MOST_NEIGHBORS)]
}

fn is_right(query: &Query, neighbor: &Neighbor) -> Option<bool> {
    Some(query.label? == neighbor.label?)
}

fn query_row(query: &Query, data: &ReportData, words: &Words, quality: Quality) -> String {
    let label = |label: Option<u32>| label.map(|label| class_name(&data.class_names, label));
    let own = label(query.label);
    let name = clip(&query.name, 100);
    let alt = format!("{} {name}{}", words.asked, own.as_ref().map_or(String::new(), |own| format!(", {own}")));
    let mut out = format!(
        "<div class=\"query\"><figure class=\"from\">{}<figcaption>{}</figcaption></figure><div class=\"near\">",
        img(&query.image, &alt, quality),
        escape(&own.unwrap_or_else(|| words.asked.into())),
    );
    for (i, neighbor) in shown(query).iter().enumerate() {
        let similarity = if neighbor.similarity.is_finite() {
            minus(format!("{:.2}", neighbor.similarity))
        } else {
            "not a number".into()
        };
        let (class, mark, word) = match is_right(query, neighbor) {
            Some(true) => (" class=\"right\"", "<b class=\"mark\" aria-hidden=\"true\">✓</b>", ", same class"),
            Some(false) => (" class=\"wrong\"", "<b class=\"mark\" aria-hidden=\"true\">✗</b>", ", another class"),
            None => ("", "", ""),
        };
        let other = label(neighbor.label).unwrap_or_default();
        let comma = if other.is_empty() { "" } else { ", " };
        let alt = format!("neighbor {}: {other}{comma}similarity {similarity}{word}", i + 1);
        out += &format!(
            "<figure{class}>{}{mark}<figcaption><span>{}</span>{similarity}</figcaption></figure>",
            img(&neighbor.image, &alt, quality),
            escape(&other),
        );
    }
    out + "</div></div>"
}
