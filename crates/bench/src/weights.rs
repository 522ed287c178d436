//! Weights in and out: checkpoints of other projects at full size, made by PyTorch, imported, compared, and exported again.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use candle_core::{Device, Tensor};
use diptych_backbones::ResNet;
use diptych_backbones::pretrained::{self, Hints, fits_detectron2};
use diptych_nn::{Backbone, Group, ParamStore};
use serde_json::{Value, json};

use crate::measure::median;

/// Project and network of each case; the file is made by its project's rules.
const CASES: [&str; 11] = [
    "torchvision_resnet18",
    "torchvision_resnet34",
    "moco_resnet50",
    "simsiam_resnet50",
    "barlowtwins_resnet50",
    "swav_resnet50",
    "byol_resnet50",
    "solo-learn_resnet18",
    "lightly_resnet18",
    "timm_resnet101",
    "simclr_resnet50_2x",
];
/// How many times each side reads a file, in turns.
const ROUNDS: usize = 7;
/// How far a feature may be from PyTorch's, by the largest one.
const TOLERANCE: f64 = 1e-4;

/// One case's numbers.
struct Row {
    name: &'static str,
    convention: &'static str,
    megabytes: f64,
    gap: f64,
    ours: f64,
    peer: f64,
    ratio: f64,
    checks: Vec<(&'static str, Value)>,
}

impl Row {
    /// Whether features and every byte are as they should be.
    fn good(&self) -> bool {
        let whole =
            |answer: &Value| answer["equal"] == answer["of"] && answer["equal"].as_u64().is_some_and(|count| count > 0);
        self.gap <= TOLERANCE && self.checks.iter().all(|(_, answer)| whole(answer))
    }

    fn line(&self) -> String {
        let checks: Vec<String> =
            self.checks.iter().map(|(name, answer)| format!("{name} {}/{}", answer["equal"], answer["of"])).collect();
        format!(
            "{:<22} {:<12} {:>7.0} {:>10.1e} {:>9.0} {:>9.0} {:>6.2}  {}{}",
            self.name,
            self.convention,
            self.megabytes,
            self.gap,
            self.ours * 1e3,
            self.peer * 1e3,
            self.ratio,
            checks.join(", "),
            if self.good() { "" } else { "  WRONG" }
        )
    }

    fn json(&self) -> Value {
        let checks: serde_json::Map<String, Value> =
            self.checks.iter().map(|(name, answer)| (name.to_string(), answer.clone())).collect();
        json!({
            "case": format!("import_{}", self.name), "ours": self.ours * 1e3, "unit": "ms", "peer": "PyTorch", "peer_variant": "torch.load",
            "peer_value": self.peer * 1e3, "ratio": self.ratio, "rounds": ROUNDS, "features_gap": self.gap, "equal": checks,
            "megabytes": self.megabytes, "convention": self.convention,
        })
    }
}

/// The peer's process for one case.
struct Maker {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Maker {
    fn start(mut command: Command, name: &str, folder: &Path) -> Result<(Self, PathBuf)> {
        let mut child = command
            .arg(name)
            .arg(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start Python")?;
        let (input, output) = child.stdin.take().zip(child.stdout.take()).context("no pipe to Python")?;
        let mut maker = Self { child, input, output: BufReader::new(output) };
        let made = maker.answer()?;
        let file = made["file"].as_str().context("the peer made no file")?.into();
        Ok((maker, file))
    }

    fn answer(&mut self) -> Result<Value> {
        let mut line = String::new();
        if self.output.read_line(&mut line)? == 0 {
            bail!("the peer ended without an answer")
        }
        serde_json::from_str(&line).with_context(|| format!("the peer said {line:?}"))
    }

    fn ask(&mut self, question: &str) -> Result<Value> {
        writeln!(self.input, "{question}")?;
        self.input.flush()?;
        self.answer()
    }

    fn end(mut self) -> Result<()> {
        drop(self.input);
        self.child.wait()?;
        Ok(())
    }
}

/// Runs the cases whose names contain one of `filters`, prints a table, and returns its rows as JSON and whether all are right. `peer` starts the
/// peer's program.
pub(crate) fn run(filters: &[&str], device: &Device, peer: impl Fn() -> Command) -> Result<(Value, bool)> {
    println!(
        "{:<22} {:<12} {:>7} {:>10} {:>9} {:>9} {:>6}  equal to the byte",
        "case", "found", "MB", "gap", "import ms", "torch ms", "ratio"
    );
    let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
    let mut rows = Vec::new();
    for name in CASES.into_iter().filter(|name| filters.iter().any(|text| name.contains(text))) {
        let row = case(name, folder.path(), device, peer()).with_context(|| name.to_string())?;
        println!("{}", row.line());
        rows.push(row);
    }
    if rows.is_empty() {
        bail!("no case of this suite has a name that contains {}", filters.join(" or "))
    }
    Ok((rows.iter().map(Row::json).collect(), rows.iter().all(Row::good)))
}

fn case(name: &'static str, folder: &Path, device: &Device, command: Command) -> Result<Row> {
    let (mut maker, file) = Maker::start(command, name, folder)?;
    let hints = Hints { image_size: Some(96), ..Hints::default() };
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for round in 0..=ROUNDS {
        let started = Instant::now();
        let imported = pretrained::import(&file, &hints)?;
        let seconds = started.elapsed().as_secs_f64();
        drop(imported);
        let peer = maker.ask("load")?["seconds"].as_f64().context("no time")?;
        // The first brings the file into memory.
        if round > 0 {
            ours.push(seconds);
            theirs.push(peer);
        }
    }
    let imported = pretrained::import(&file, &hints)?;
    let path = folder.join("imported.safetensors");
    std::fs::write(&path, imported.safetensors()?)?;
    let architecture = &imported.found.architecture;
    let mut store = ParamStore::new(1, device);
    let net = ResNet::new(&mut store.scope(Group::Trunk), architecture)?;
    let loaded = pretrained::load(&store, path.to_str().context("a folder whose name is no text")?)?;
    let gap = features_gap(&net, &file.with_extension("values"), device)?;

    let batches = |norm: &str| loaded.batches.get(norm).copied().unwrap_or(0);
    let arrays = pretrained::export_arrays(&store, batches)?;
    let out = folder.join("exported.safetensors");
    std::fs::write(&out, pretrained::serialize(&arrays, Default::default())?)?;
    let mut checks = vec![
        ("import", maker.ask(&format!("check {}", path.display()))?),
        ("export", maker.ask(&format!("check {}", out.display()))?),
    ];
    if architecture.base == 64 {
        checks.push(("timm", maker.ask(&format!("timm {}", out.display()))?));
    }
    if fits_detectron2(architecture).is_ok() {
        let out = folder.join("exported.pth");
        std::fs::write(&out, pretrained::export_detectron2(&arrays)?)?;
        checks.push(("detectron2", maker.ask(&format!("detectron2 {}", out.display()))?));
        let back = pretrained::import(&out, &hints)?.tensors;
        let same =
            arrays.iter().filter(|(name, array)| name.ends_with("tracked") || back.get(*name) == Some(array)).count();
        checks.push(("back", json!({ "equal": same, "of": arrays.len() })));
    }
    maker.end()?;
    let megabytes = std::fs::metadata(&file)?.len() as f64 / 1e6;
    for entry in std::fs::read_dir(folder)? {
        std::fs::remove_file(entry?.path())?;
    }
    let ratios: Vec<f64> = theirs.iter().zip(&ours).map(|(theirs, ours)| theirs / ours).collect();
    let (ours, peer, ratio) = (median(&ours), median(&theirs), median(&ratios));
    Ok(Row { name, convention: imported.found.convention, megabytes, gap, ours, peer, ratio, checks })
}

/// The largest difference of a feature from the peer's, by its largest one or 1.
fn features_gap(net: &ResNet, values: &Path, device: &Device) -> Result<f64> {
    let mut values = candle_core::safetensors::load(values, device)?;
    let mut take = |name: &str| values.remove(name).with_context(|| format!("the peer gave no {name}"));
    let (images, expected) = (take("images")?, take("features")?);
    let features = net.forward_t(&images, false)?;
    let largest = |x: &Tensor| -> Result<f64> { Ok(f64::from(x.abs()?.max_all()?.to_scalar::<f32>()?)) };
    Ok(largest(&(features - &expected)?)? / largest(&expected)?.max(1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_good_only_if_all_of_it_is() {
        let row = |gap: f64, equal: u64| Row {
            name: "x",
            convention: "moco",
            megabytes: 1.0,
            gap,
            ours: 1.0,
            peer: 1.0,
            ratio: 1.0,
            checks: vec![("import", json!({ "equal": 3, "of": 3 })), ("export", json!({ "equal": equal, "of": 3 }))],
        };
        assert!(row(1e-5, 3).good());
        assert!(!row(1e-3, 3).good() && !row(f64::NAN, 3).good() && !row(1e-5, 2).good());
        assert!(row(1e-5, 2).line().ends_with("WRONG"));
    }
}
