//! Every operation at many strengths, and whole published recipes, on a picture like a photograph, against torchvision.
//!
//! Values: tests/fixtures/make_augment_quality.py. The bars are 45 dB for an operation and 38 dB for a recipe; ours give
//! torchvision's bytes, resized as Pillow up to 12 resizes, which the digests say. Pillow 13 resizes some crops in another
//! order; to what it makes of them, the distance is held to the same bars.
//!
//! `cargo test -p diptych-tests --test golden quality -- --nocapture` prints the table.

use std::collections::BTreeMap;

use diptych_augment::{Image, apply};
use safetensors::SafeTensors;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

use super::augment::{View, operate};
use super::augment_scene::{scene, small};

static FIXTURE: &[u8] = include_bytes!("../../fixtures/augment_quality.safetensors");

/// Least agreement of an operation, in dB.
const OPERATION_BAR: f64 = 45.0;
/// Least agreement of a whole recipe, in dB.
const RECIPE_BAR: f64 = 38.0;

#[derive(Deserialize)]
struct Case {
    op: String,
    picture: String,
    args: Vec<serde_json::Value>,
    digest: String,
    psnr: Option<f64>,
}

#[derive(Deserialize)]
struct Drawn {
    recipe: String,
    view: usize,
    picture: String,
    digest: String,
    psnr: Option<f64>,
    params: View,
}

fn metadata<T: DeserializeOwned>(key: &str) -> T {
    let (_, metadata) = SafeTensors::read_metadata(FIXTURE).expect("the fixture is a safetensors file");
    let text = &metadata.metadata().as_ref().expect("the fixture has metadata")[key];
    serde_json::from_str(text).expect("the fixture's metadata is JSON")
}

/// The pictures, which are those of the fixture.
fn pictures() -> BTreeMap<String, Image> {
    let scene = scene();
    let small = small(&scene);
    let pictures = BTreeMap::from([("scene".to_owned(), scene), ("small".to_owned(), small)]);
    let expected: BTreeMap<String, String> = metadata("pictures");
    for (name, picture) in &pictures {
        assert_eq!(digest(picture), expected[name], "the fixture was made of another {name}");
    }
    pictures
}

fn digest(image: &Image) -> String {
    Sha256::digest(&image.pixels).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// 10 log10(255^2 / mean squared difference), in dB; infinite for equal bytes.
fn psnr<'a>(pairs: impl Iterator<Item = (&'a u8, &'a u8)>) -> f64 {
    let (mut sum, mut count) = (0.0, 0.0);
    for (&a, &b) in pairs {
        sum += (f64::from(a) - f64::from(b)).powi(2);
        count += 1.0;
    }
    10.0 * (255.0 * 255.0 * count / sum).log10()
}

/// Agreement with the pixels that the fixture keeps of what the installed Pillow makes, in dB.
fn against_sample(image: &Image, sample: &[u8]) -> f64 {
    let (pixels, _) = image.pixels.as_chunks::<3>();
    let place = |k: u64| ((k * 0x9e37_79b1 % (1 << 32)) * pixels.len() as u64) >> 32;
    let ours = (1..=sample.len() as u64 / 3).flat_map(|k| &pixels[place(k) as usize]);
    psnr(ours.zip(sample))
}

/// What one operation or recipe came to.
#[derive(Default)]
struct Row {
    cases: usize,
    exact: usize,
    otherwise: usize,
    least: f64,
}

/// Judges pictures of one kind against their digests and samples, and prints how they did.
struct Judge {
    bar: f64,
    samples: Vec<u8>,
    rows: BTreeMap<String, Row>,
    failures: Vec<String>,
    seen: usize,
}

impl Judge {
    fn new(kind: &str, bar: f64) -> Self {
        let tensors = SafeTensors::deserialize(FIXTURE).expect("the fixture is a safetensors file");
        let samples = tensors.tensor(kind).expect(kind).data().to_vec();
        Self { bar, samples, rows: BTreeMap::new(), failures: Vec::new(), seen: 0 }
    }

    /// `installed`: what the installed Pillow gives differs from the digest's picture by so many dB.
    fn case(&mut self, row: &str, what: &str, got: &Image, expected: &str, installed: Option<f64>) {
        let sample = &self.samples[self.seen * 768..][..768];
        self.seen += 1;
        let exact = digest(got) == expected;
        let sampled = against_sample(got, sample);
        // Where the bytes are those of the digest, the distance over all pixels is known; a sample may miss it.
        let agreement = if exact { installed.unwrap_or(f64::INFINITY) } else { sampled };
        let row = self.rows.entry(row.to_owned()).or_insert(Row { least: f64::INFINITY, ..Row::default() });
        row.cases += 1;
        row.exact += usize::from(exact);
        row.otherwise += usize::from(installed.is_some());
        row.least = row.least.min(agreement);
        if !exact {
            self.failures.push(format!("{what}: other bytes than torchvision's, {sampled:.1} dB over 256 pixels"));
        }
        if agreement.min(sampled) < self.bar {
            self.failures.push(format!("{what}: {agreement:.1} dB, the bar is {} dB", self.bar));
        }
    }

    fn end(self, cases: usize) {
        assert_eq!(self.samples.len(), self.seen * 768);
        assert!(self.seen >= cases, "the fixture has only {} cases", self.seen);
        println!("{:<20} cases  same bytes  differ in Pillow 13  least dB (bar {})", "", self.bar);
        for (name, Row { cases, exact, otherwise, least }) in &self.rows {
            println!("{name:<20} {cases:>5}  {exact:>10}  {otherwise:>19}  {least:.1}");
        }
        assert!(self.failures.is_empty(), "{} failures:\n{}", self.failures.len(), self.failures.join("\n"));
    }
}

#[test]
fn quality_of_operations() {
    let (pictures, cases) = (pictures(), metadata::<Vec<Case>>("cases"));
    let mut judge = Judge::new("cases", OPERATION_BAR);
    for case in &cases {
        let got = operate(&case.op, &case.args, &pictures[&case.picture]);
        let what = format!("{} {:?} of {}", case.op, case.args, case.picture);
        judge.case(&case.op, &what, &got, &case.digest, case.psnr);
    }
    assert_eq!(judge.rows.len(), 9);
    judge.end(150);
}

#[test]
fn quality_of_recipes() {
    let (pictures, views) = (pictures(), metadata::<Vec<Drawn>>("views"));
    let mut judge = Judge::new("views", RECIPE_BAR);
    for drawn in &views {
        let params = drawn.params.params();
        let got = apply(&pictures[&drawn.picture], &params);
        let what = format!("{}, view {}, {params:?} of {}", drawn.recipe, drawn.view, drawn.picture);
        let row = format!("{} at {}", drawn.recipe, params.size);
        judge.case(&row, &what, &got, &drawn.digest, drawn.psnr);
    }
    assert_eq!(judge.rows.len(), 10);
    judge.end(100);
}

/// The bars are no formality: the smallest step off torchvision's arithmetic is noticed, and a wrong operation is below them.
#[test]
fn quality_is_judged() {
    let picture = scene();
    let cases: Vec<Case> = metadata("cases");
    let verdict = |op: &str, args: &[serde_json::Value], wrong: fn(&mut Image)| {
        let at = cases.iter().position(|c| c.op == op && c.args == args && c.picture == "scene").expect("a case");
        let mut judge = Judge::new("cases", OPERATION_BAR);
        judge.seen = at;
        let mut got = operate(op, args, &picture);
        wrong(&mut got);
        judge.case(op, op, &got, &cases[at].digest, cases[at].psnr);
        judge.failures
    };
    let blur = [serde_json::json!(2.0)];
    assert_eq!(verdict("blur", &blur, |_| {}), Vec::<String>::new());
    let one_off = verdict("blur", &blur, |image| image.pixels[777] ^= 1);
    assert_eq!(one_off.len(), 1, "{one_off:?}");
    let brighter = verdict("blur", &blur, |image| diptych_augment::ops::brightness(image, 1.05));
    assert_eq!(brighter.len(), 2, "{brighter:?}");
}
