//! Whatever stands in an `[augment]` table is refused in one line or followed: nothing panics, and no view is missing.
//!
//! About a second of random tables each; `BOLERO_RANDOM_SEED`, which a failure prints, repeats them.

use std::fmt::Write;

use diptych_augment::{Depth, Image, MAX_CHANNELS, Picture, PixelFormat, Raster, Recipe, Samples, Stream};

/// A generated key: which one, how its value is written, and what it is made of.
type Entry = (u8, u8, u64);

/// Numbers at which arithmetic turns: the ends of ranges, what overflows, what is no number.
const EDGES: [&str; 22] = [
    "0",
    "1",
    "-1",
    "0.5",
    "0.1",
    "2",
    "3",
    "16",
    "33",
    "255",
    "256",
    "-0.0",
    "1e-300",
    "5e-324",
    "1e300",
    "1.7e308",
    "nan",
    "inf",
    "-inf",
    "9223372036854775807",
    "0.999999999",
    "8192",
];

fn number(bits: u64) -> String {
    match bits % 4 {
        0 => EDGES[(bits / 4) as usize % EDGES.len()].to_owned(),
        1 => format!("{:?}", (bits / 4 % 1000) as f64 / 1000.0),
        2 => format!("{}", bits / 4 % 64),
        _ => match f64::from_bits(bits) {
            x if x.is_nan() => "nan".to_owned(),
            x => format!("{x:?}").replace("inf", "1e999"),
        },
    }
}

/// Mostly of the form that the key wants, and at times of any.
fn value(key: &str, shape: u8, bits: u64) -> String {
    let mixed = |k: u64| bits.rotate_left(13 * k as u32).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let share = |k: u64| (1 + mixed(k) % 1000) as f64 / 1000.0;
    let list = |n: u64| (0..n).map(|k| number(mixed(k))).collect::<Vec<_>>().join(", ");
    if shape < 200 {
        return match key {
            "size" | "solarize_threshold" => format!("{}", bits % 256),
            "interpolation" => ["\"bicubic\"", "\"bilinear\""][(bits % 2) as usize].to_owned(),
            "crop_scale" | "crop_ratio" | "blur_sigma" => {
                format!("[{}, {}]", share(1).min(share(2)), share(1).max(share(2)))
            }
            "mean" | "std" => format!("[{}]", (0..3).map(|k| share(k).to_string()).collect::<Vec<_>>().join(", ")),
            "hue" => format!("{}", share(1) / 2.0),
            _ => format!("{}", share(1)),
        };
    }
    match shape % 5 {
        0 => number(bits),
        1 | 2 => format!("[{}]", list(2)),
        3 => format!("[{}]", list(bits % 20)),
        _ => ["\"bicubic\"", "\"\"", "true", "{}", "2020-01-01", "[[]]"][(bits % 6) as usize].to_owned(),
    }
}

/// A table with these entries, the first of each key; the last ones are those of its views.
fn table(entries: &[Entry], views: &[Vec<Entry>]) -> String {
    let lines = |entries: &[Entry]| {
        let mut seen = Vec::new();
        let mut lines = Vec::new();
        for &(key, shape, bits) in entries {
            let key = Recipe::KEYS[usize::from(key) % Recipe::KEYS.len()];
            if !seen.contains(&key) {
                seen.push(key);
                lines.push(format!("{key} = {}", value(key, shape, bits)));
            }
        }
        lines
    };
    let mut text = lines(entries).join("\n");
    if !views.is_empty() {
        let views: Vec<String> = views.iter().map(|view| format!("{{ {} }}", lines(view).join(", "))).collect();
        let _ = write!(text, "\nviews = [{}]", views.join(", "));
    }
    text
}

/// Every view of a recipe that was found sound, of this picture.
fn follow(mut recipe: Recipe, picture: &Picture, key: u64) {
    // The largest size allowed is 200 MB a view: sound, but not for a test of many.
    recipe.size = recipe.size.min(40);
    recipe.views.iter_mut().for_each(|view| view.size = view.size.map(|size| size.min(40)));
    for (v, recipe) in recipe.views().iter().enumerate().take(4) {
        let view = picture.random_view(recipe, &mut Stream::keyed(key, &[v as u64]));
        assert_eq!((view.width(), view.height()), (recipe.size, recipe.size));
        let channels = view.format().channels;
        let mut normalized = vec![f32::NAN; recipe.size * recipe.size * channels];
        view.normalize_into(&recipe.mean, &recipe.std, &mut normalized);
    }
}

fn pictures(key: u64) -> [Picture; 2] {
    let (width, height) = (1 + key as usize % 9, 1 + key as usize / 9 % 9);
    let channels = 1 + key as usize / 81 % MAX_CHANNELS;
    let bytes = |n: usize| (0..n).map(|i| (i as u64 * 37 + key) as u8);
    let image = Image::new(width, height, bytes(width * height * 3).collect()).expect("the length is right");
    let numbers = bytes(width * height * channels);
    let samples = match key % 3 {
        0 => Samples::U8(numbers.collect()),
        1 => Samples::U16(numbers.map(|b| u16::from(b) * 257).collect()),
        _ => Samples::F32(numbers.map(|b| f32::from(b) - 100.0).collect()),
    };
    [image.into(), Raster::new(width, height, channels, samples).expect("the length is right").into()]
}

/// Judges the text; returns whether views were made.
fn judge(text: &str, key: u64) -> bool {
    let recipe: Recipe = match toml::from_str(text) {
        Ok(recipe) => recipe,
        Err(error) => {
            assert!(!error.message().contains('\n'), "{error}");
            return false;
        }
    };
    let mut followed = false;
    for picture in pictures(key) {
        match recipe.check().and_then(|()| recipe.check_for(picture.format())) {
            Ok(()) => {
                follow(recipe.clone(), &picture, key);
                followed = true;
            }
            Err(error) => {
                let sentence = error.to_string();
                assert!(sentence.starts_with("augment.") && !sentence.contains('\n'), "{sentence}");
            }
        }
    }
    followed
}

#[test]
fn any_text_is_refused_or_followed() {
    bolero::check!().with_type::<Vec<u8>>().for_each(|bytes| {
        judge(&String::from_utf8_lossy(bytes), bytes.len() as u64);
    });
}

#[test]
fn any_table_is_refused_or_followed() {
    bolero::check!().with_type::<(Vec<Entry>, Vec<Vec<Entry>>, u64)>().for_each(|(entries, views, key)| {
        judge(&table(&entries[..entries.len().min(6)], &views[..views.len().min(4)]), *key);
    });
}

/// The generator reaches both ends: it is no fuzzing if everything is refused.
#[test]
fn some_tables_are_followed_and_some_refused() {
    let mut stream = Stream::keyed(3, &[]);
    let mut entry = || (stream.next_u64() as u8, stream.next_u64() as u8, stream.next_u64());
    let followed = (0..2000).filter(|&key| judge(&table(&[entry()], &[vec![entry()], vec![]]), key)).count();
    assert!((100..1900).contains(&followed), "{followed} of 2000 tables were followed");
}

/// The same entry of a table breaks no picture of another depth.
#[test]
fn a_recipe_for_one_depth_is_judged_for_another() {
    let text = "saturation = 0\nhue = 0\ngrayscale = 0\nmean = [0, 0]\nstd = [1, 1]";
    let recipe: Recipe = toml::from_str(text).expect("it is sound");
    for depth in [Depth::U8, Depth::U16, Depth::F32] {
        assert_eq!(recipe.check_for(PixelFormat { channels: 2, depth }), Ok(()));
        assert!(recipe.check_for(PixelFormat { channels: 3, depth }).is_err());
    }
}
