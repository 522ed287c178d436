//! The page around the pictures: head, key numbers, notes, tables, recipe.

use super::chart::count;
use super::html::{duration, escape, percent, thousands, value};
use super::model::{NoteLevel, ReportData, Status};
use super::{charts, gallery, map};

const CSS: &str = include_str!("report.css");
/// Two panels, hinged: what a diptych is.
const LOGO: &str = "<svg class=\"logo\" viewBox=\"0 0 34 28\" aria-hidden=\"true\"><path class=\"c0\" d=\"M2 5l14-3v24L2 23z\"/>\
                    <path class=\"c1\" d=\"M32 5L18 2v24l14-3z\"/></svg>";
/// Bytes of recipe shown; the run directory holds all of it.
const MOST_RECIPE: usize = 200_000;

/// The whole page.
pub(super) fn html(data: &ReportData) -> String {
    let [views, neighbors] = gallery::sections(data);
    let (curves, health) = (charts::section(data), charts::health(data));
    let map::Section { html: map, css } = map::section(data);
    let recipe = recipe(data);
    let tables = tables(data);
    let sections = [
        ("curves", "Curves", &curves),
        ("health", "Health", &health),
        ("views", "Views", &views),
        ("neighbors", "Neighbors", &neighbors),
        ("map", "Map", &map),
        ("run", "Run", &tables),
        ("recipe", "Recipe", &recipe),
    ];
    let links: String = sections
        .iter()
        .filter(|(_, _, html)| !html.is_empty())
        .map(|(id, name, _)| format!("<a href=\"#{id}\">{name}</a>"))
        .collect();
    let nav = if links.is_empty() { links } else { format!("<nav aria-label=\"Sections\">{links}</nav>\n") };
    let body: String = sections.iter().map(|(_, _, html)| html.as_str()).collect();
    let title = clip(if data.title.is_empty() { "Run" } else { &data.title }, 200);
    let note = format!(
        "Written by Diptych{}. This page is one file: it needs no network and runs no script. While a run goes on it is \
         written anew at every evaluation; reload to see more.",
        if data.written.is_empty() { String::new() } else { format!(" on {}", escape(&clip(&data.written, 100))) },
    );
    let body = format!("{}{}{}{nav}{body}", header(data, &title), cards(data), notes(data));
    frame(&title, &body, &note, &css)
}

/// A page of another kind in the same look.
pub(super) fn sheet(title: &str, body: &str) -> String {
    let note = "Written by Diptych. This page is one file: it needs no network and runs no script.";
    frame(title, &(self::title(title) + body), note, "")
}

/// The head of a page that is no run's.
pub(super) fn title(title: &str) -> String {
    format!("<header><p class=\"brand\">{LOGO}Diptych</p><h1>{}</h1></header>\n", escape(&clip(title, 200)))
}

/// The page around `body`, with rules of its own after those of all pages.
pub(super) fn frame(title: &str, body: &str, note: &str, css: &str) -> String {
    // The policy makes "needs no network" a fact that the browser enforces.
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; img-src data:\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<link rel=\"icon\" href=\"data:,\">\n\
         <title>{} · Diptych</title>\n<style>\n{CSS}{css}</style></head>\n<body><main>\n{body}\
         <footer>{LOGO}<p>{note}</p></footer>\n</main></body></html>\n",
        escape(title),
    )
}

/// `data wait` as `Data wait`.
pub(crate) fn upper_first(name: &str) -> String {
    let mut chars = name.chars();
    chars.next().map_or(String::new(), |first| first.to_uppercase().chain(chars).collect())
}

/// Text of at most `most` characters.
pub(super) fn clip(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}

/// The name of a class, or its number.
pub(super) fn class_name(names: &[String], label: u32) -> String {
    match usize::try_from(label).ok().and_then(|label| names.get(label)) {
        Some(name) if !name.is_empty() => clip(name, 60),
        _ => format!("class {label}"),
    }
}

fn header(data: &ReportData, title: &str) -> String {
    let method: Vec<String> = [&data.method, &data.paper]
        .into_iter()
        .filter(|text| !text.is_empty())
        .map(|text| escape(&clip(text, 300)))
        .collect();
    let method = match method.as_slice() {
        [] => String::new(),
        [first, rest @ ..] => format!("<p class=\"method\"><b>{first}</b> {}</p>", rest.concat()),
    };
    let (class, word, step, total) = match &data.status {
        Status::Running { step, total } => ("running", "running", *step, *total),
        Status::Finished { step } => ("finished", "finished", *step, *step),
        Status::Stopped { step, total, .. } => ("stopped", "stopped", *step, *total),
    };
    let of = if class == "finished" || total == 0 { String::new() } else { format!(" of {}", thousands(total)) };
    let mut status = format!("<p class=\"status {class}\"><b>{word}</b><span>step {}{of}</span></p>", thousands(step));
    if class != "finished" && total > 0 {
        let share = 100.0 * step.min(total) as f64 / total as f64;
        status += &format!(
            "<div class=\"done {class}\" role=\"progressbar\" aria-label=\"Training progress\" aria-valuemin=\"0\" \
             aria-valuemax=\"100\" aria-valuenow=\"{share:.0}\"><i style=\"width:{share:.1}%\"></i></div>"
        );
    }
    if let Status::Stopped { reason, .. } = &data.status {
        status += &format!("<p class=\"reason\">{}</p>", escape(&clip(reason, 1000)));
    }
    format!(
        "<header><p class=\"brand\">{LOGO}Diptych</p><div class=\"head\"><div><h1>{}</h1>{method}</div>\
         <div class=\"state\">{status}</div></div></header>\n",
        escape(title)
    )
}

/// A comparison as bars: (name, fraction, is it the run's own).
fn bars(rows: &[(&str, Option<f64>, bool)]) -> String {
    let row = |(name, fraction, own): &(&str, Option<f64>, bool)| {
        let fraction = fraction.filter(|fraction| fraction.is_finite())?;
        let class = if *own { " class=\"own\"" } else { "" };
        let width = 100.0 * fraction.clamp(0.0, 1.0);
        let text = percent(fraction);
        Some(format!(
            "<tr{class}><th scope=\"row\">{name}</th><td><i style=\"width:{width:.1}%\"></i></td><td>{text}</td></tr>"
        ))
    };
    format!("<table class=\"bars\"><tbody>{}</tbody></table>", rows.iter().filter_map(row).collect::<String>())
}

/// A number in a box; `name`, `number` and `more` are HTML.
fn boxed(class: &str, name: &str, number: &str, more: &str) -> String {
    format!("<div class=\"card{class}\"><h2>{name}</h2><p class=\"number\">{number}</p>{more}</div>\n")
}

fn hero(name: &str, number: &str, below: &str, bars: &str) -> String {
    format!("<div class=\"card hero\"><div><h2>{name}</h2><p class=\"number\">{number}</p>{below}</div>{bars}</div>\n")
}

fn cards(data: &ReportData) -> String {
    let summary = &data.summary;
    let finite = |number: Option<f64>| number.filter(|number| number.is_finite());
    let note = |text: String| if text.is_empty() { text } else { format!("<p class=\"note\">{text}</p>") };
    let (mut heroes, mut out) = (String::new(), String::new());
    if let Some(knn) = finite(summary.knn) {
        let k = if summary.knn_k == 0 { 20 } else { summary.knn_k };
        let chance = (data.class_names.len() > 1).then(|| 1.0 / data.class_names.len() as f64);
        let rows = [
            ("this run", Some(knn), true),
            ("random backbone", summary.random_knn, false),
            ("raw pixels", summary.raw_knn, false),
            ("chance", chance, false),
        ];
        let best = finite(summary.best_knn).filter(|best| *best > knn + 5e-4);
        let best = best.map_or(String::new(), |best| format!("best of the run {}", percent(best)));
        heroes += &hero(&format!("{k}-NN accuracy"), &percent(knn), &note(best), &bars(&rows));
    }
    if let Some(linear) = finite(summary.linear) {
        let rows = [("this run", Some(linear), true), ("random backbone", summary.random_linear, false)];
        heroes += &hero("Linear probe accuracy", &percent(linear), "", &bars(&rows));
    }
    if let Some(loss) = finite(summary.loss) {
        out += &boxed("", "Loss", &value(loss), "");
    }
    if let Some(std) = finite(summary.embedding_std) {
        let ideal = data.embedding_dim.filter(|d| *d > 0).map(|d| (d as f64).sqrt().recip());
        let ideal = ideal.map_or(String::new(), |ideal| format!("{} when spread evenly", value(ideal)));
        let class = if data.collapsed_since.is_some() { " warn" } else { "" };
        out += &boxed(class, "Embedding std", &value(std), &note(ideal));
    }
    for (name, number) in [("Alignment", summary.alignment), ("Uniformity", summary.uniformity)] {
        if let Some(number) = finite(number) {
            out += &boxed("", name, &value(number), &note("lower is better".into()));
        }
    }
    if let Some(speed) = finite(summary.images_per_second) {
        out += &boxed("", "Images per second", &value(speed), "");
    }
    if let Some(seconds) = finite(summary.elapsed_seconds) {
        let left = finite(summary.remaining_seconds).filter(|_| matches!(data.status, Status::Running { .. }));
        let left = left.map_or(String::new(), |left| format!("about {} left", duration(left)));
        out += &boxed("", "Training time", &duration(seconds), &note(left));
    }
    if data.skipped_images > 0 {
        let more = note("could not be decoded and were replaced".into());
        out += &boxed(" warn", "Images skipped", &thousands(data.skipped_images), &more);
    }
    let wrap = |class: &str, html: String| {
        if html.is_empty() { html } else { format!("<div class=\"{class}\">\n{html}</div>\n") }
    };
    wrap("heroes", heroes) + &wrap("cards", out)
}

fn notes(data: &ReportData) -> String {
    let item = |note: &super::model::Note| {
        let (class, word, sign) = match note.level {
            NoteLevel::Good => ("good", "Good", "✓"),
            NoteLevel::Info => ("info", "Note", "i"),
            NoteLevel::Warning => ("warning", "Warning", "!"),
        };
        let text = escape(&clip(&note.text, 1000));
        format!("<li class=\"{class}\"><b role=\"img\" aria-label=\"{word}:\">{sign}</b><span>{text}</span></li>")
    };
    let items: String = data.notes.iter().take(50).map(item).collect();
    if items.is_empty() {
        items
    } else {
        format!("<ul class=\"notes\" aria-label=\"Health of the run\">{items}</ul>\n")
    }
}

/// A number in a box, with a note below it unless that is empty.
pub(super) fn card(class: &str, name: &str, number: &str, note: &str) -> String {
    let [name, number, note] = [name, number, note].map(|text| escape(&clip(text, 200)));
    let note = if note.is_empty() { note } else { format!("<p class=\"note\">{note}</p>") };
    boxed(class, &name, &number, &note)
}

/// Rows of (what, value) under a caption; empty without a row.
pub(super) fn table(caption: &str, rows: &[(String, String)]) -> String {
    let row = |(name, text): &(String, String)| {
        let (name, text) = (escape(&upper_first(&clip(name, 200))), escape(&clip(text, 2000)));
        format!("<tr><th scope=\"row\">{name}</th><td>{text}</td></tr>")
    };
    let body: String = rows.iter().take(100).map(row).collect();
    if body.is_empty() {
        return body;
    }
    format!("<table><caption>{caption}</caption><tbody>{body}</tbody></table>\n")
}

fn tables(data: &ReportData) -> String {
    let mut facts = data.facts.clone();
    if !data.class_names.is_empty() {
        let shown = data.class_names.iter().take(20).map(|name| clip(name, 60)).collect::<Vec<_>>().join(", ");
        let more = data.class_names.len().saturating_sub(20);
        let more = if more > 0 { format!(" and {} more", thousands(more as u64)) } else { String::new() };
        facts.push((count(data.class_names.len(), "class", "classes"), shown + &more));
    }
    let both = table("Data and model", &facts) + &table("Machine", &data.machine);
    if both.is_empty() {
        return both;
    }
    format!("<section id=\"run\"><h2>Run</h2>\n<div class=\"tables\">{both}</div></section>\n")
}

fn recipe(data: &ReportData) -> String {
    if data.recipe.trim().is_empty() {
        return String::new();
    }
    let (mut text, mut cut) = (data.recipe.trim_end(), "");
    if text.len() > MOST_RECIPE {
        text = &text[..text.floor_char_boundary(MOST_RECIPE)];
        cut = "<p class=\"how\">Cut here for its length; recipe.toml in the run directory holds all of it.</p>";
    }
    let lines: Vec<String> = text.lines().map(recipe_line).collect();
    format!(
        "<section id=\"recipe\"><h2>Recipe</h2>\n<p class=\"lead\">All settings of the run, with what the recipe left out \
         filled in. Saved as <code>recipe.toml</code>, it repeats the run.</p>\n\
         <pre tabindex=\"0\" aria-label=\"Merged recipe\"><code>{}</code></pre>{cut}</section>\n",
        lines.join("\n")
    )
}

/// One line of TOML with its parts marked for the eye.
fn recipe_line(line: &str) -> String {
    let start = line.trim_start();
    if start.starts_with('#') {
        return format!("<i>{}</i>", escape(line));
    }
    if start.starts_with('[') && start.trim_end().ends_with(']') && !start.contains('=') && !start.contains('"') {
        return format!("<b>{}</b>", escape(line));
    }
    match line.split_once('=') {
        Some((key, rest)) if key.trim().chars().all(|c| c.is_alphanumeric() || "_-.".contains(c)) => {
            format!("<u>{}</u>={}", escape(key), escape(rest))
        }
        _ => escape(line),
    }
}
