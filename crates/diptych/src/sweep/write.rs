//! The files of a sweep: `sweep.md`, `sweep.json`, `sweep.html` and `plot.svg`.

use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::Summary;
use super::plan::plain;
use crate::trainer::log::replace_file;
use crate::trainer::report::{self, escape};

impl Summary {
    /// Writes the table as Markdown, JSON and a page, and the picture, into `dir`.
    ///
    /// # Errors
    /// If a file can't be written.
    pub fn write(&self, dir: &Path) -> Result<()> {
        let svg = self.figure().svg();
        let json = serde_json::to_string_pretty(&self.json())? + "\n";
        for (name, text) in [
            ("plot.svg", svg.clone()),
            ("sweep.md", self.markdown()),
            ("sweep.html", self.html(&svg)),
            ("sweep.json", json),
        ] {
            let path = dir.join(name);
            replace_file(&path, text.as_bytes()).with_context(|| format!("{} can't be written", path.display()))?;
        }
        Ok(())
    }

    /// The sentences above the table.
    fn lead(&self) -> Vec<String> {
        let mut lead = Vec::new();
        if !self.sweep.note.is_empty() {
            lead.push(self.sweep.note.split_whitespace().collect::<Vec<_>>().join(" "));
        }
        let mut recipes: Vec<&str> = self.sweep.variants.iter().map(|variant| variant.recipe.as_str()).collect();
        recipes.sort_unstable();
        recipes.dedup();
        let set: Vec<String> = self.sweep.set.iter().map(|(key, value)| format!("{key} = {}", plain(value))).collect();
        let set = if set.is_empty() { String::new() } else { format!(", with {}", set.join(", ")) };
        lead.push(format!("Recipe {}{set}.", recipes.join(" and ")));
        let mut measured = format!("Measured: {}; mean and deviation (n - 1) over seeds.", self.metric());
        if let Some(random) = self.random_knn() {
            measured += &format!(" A random backbone has a kNN accuracy of {}.", report::percent(random));
        }
        measured +=
            " Spread is the std of normalized embeddings over 1/√D: 100 % on a sphere filled evenly, 0 at a collapse.";
        lead.push(measured);
        let (ended, total) = (self.ended(), self.total());
        if ended < total {
            lead.push(format!("{ended} of {total} runs have ended."));
        }
        lead
    }

    /// The table as Markdown.
    pub fn table(&self) -> String {
        let (head, rows) = self.cells();
        let line = |cells: &[String]| {
            let cells: Vec<String> = cells.iter().map(|cell| cell.replace('|', "\\|")).collect();
            format!("| {} |\n", cells.join(" | "))
        };
        let rule: Vec<String> = head.iter().map(|_| "---".to_string()).collect();
        line(&head) + &line(&rule) + &rows.iter().map(|(cells, _)| line(cells)).collect::<String>()
    }

    fn markdown(&self) -> String {
        let machine: Vec<String> =
            report::machine().into_iter().map(|(what, value)| format!("{what} {value}")).collect();
        format!(
            "# {}\n\n{}\n\n{}\n![{}](plot.svg)\n\nMachine: {}.\n",
            self.sweep.title,
            self.lead().join("\n\n"),
            self.table(),
            self.sweep.title,
            machine.join(", ")
        )
    }

    fn html(&self, svg: &str) -> String {
        let (head, rows) = self.cells();
        let names = head.iter().position(|name| name.starts_with("seed ")).unwrap_or(1);
        let class = |i: usize| if i < names { " class=\"name\"" } else { "" };
        let heads: String = head
            .iter()
            .enumerate()
            .map(|(i, name)| format!("<th scope=\"col\"{}>{}</th>", class(i), escape(name)))
            .collect();
        let mut body = String::new();
        for (row, (cells, ill)) in self.rows.iter().zip(&rows) {
            let cell = |(i, text): (usize, &String)| {
                let text = escape(text);
                let run = i.checked_sub(names).and_then(|seed| row.runs.get(seed));
                let trouble = *ill && i == cells.len() - 2;
                match run {
                    Some((folder, Some(_))) => {
                        format!("<td><a href=\"{}/report.html\">{text}</a></td>", escape(folder))
                    }
                    _ if trouble => format!("<td class=\"ill\">{text}</td>"),
                    _ => format!("<td{}>{text}</td>", class(i)),
                }
            };
            body += &format!("<tr>{}</tr>\n", cells.iter().enumerate().map(cell).collect::<String>());
        }
        let lead: String = self.lead().iter().map(|text| format!("<p class=\"lead\">{}</p>\n", escape(text))).collect();
        let machine: String = report::machine()
            .iter()
            .map(|(what, value)| format!("<tr><th scope=\"row\">{}</th><td>{}</td></tr>", escape(what), escape(value)))
            .collect();
        let html = format!(
            "{lead}<section class=\"sheet\">{svg}</section>\n<section><h2>Runs</h2>\n<p class=\"lead\">Each number leads to the \
             report of its run.</p>\n<table class=\"sweep\"><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table></section>\n\
             <section id=\"run\"><h2>Machine</h2>\n<div class=\"tables\"><table><tbody>{machine}</tbody></table></div></section>\n"
        );
        report::sheet(&self.sweep.title, &html)
    }

    fn json(&self) -> Value {
        let keys: Vec<&str> = self.sweep.grid.iter().map(|(key, _)| key.as_str()).collect();
        let rows: Vec<Value> = self
            .rows
            .iter()
            .map(|row| {
                let runs: Vec<Value> = row
                    .runs
                    .iter()
                    .zip(&self.seeds)
                    .map(|((folder, outcome), seed)| json!({ "seed": seed, "folder": folder, "outcome": outcome }))
                    .collect();
                let grid: serde_json::Map<String, Value> = keys
                    .iter()
                    .zip(&row.values)
                    .map(|(key, value)| ((*key).to_string(), value.as_str().into()))
                    .collect();
                json!({
                    "label": row.label, "variant": row.variant, "grid": grid, "mean": row.mean(),
                    "deviation": row.deviation(), "remark": row.remark(), "runs": runs,
                })
            })
            .collect();
        let machine: serde_json::Map<String, Value> =
            report::machine().into_iter().map(|(what, value)| (what, value.into())).collect();
        json!({
            "title": self.sweep.title, "note": self.sweep.note, "metric": self.sweep.metric, "seeds": self.seeds,
            "random_knn_top1": self.random_knn(), "rows": rows, "machine": machine,
        })
    }
}
