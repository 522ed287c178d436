//! Applies given views to a picture: `apply_views PICTURE.ppm VIEWS.toml FOLDER` writes `FOLDER/<k>.ppm` for each `[[view]]`.
//!
//! The other half of tests/fixtures/draw_augment.py, which compares them with torchvision's.

use std::path::Path;

use diptych_augment::{CropBox, Image, Interpolation, Jitter, JitterOp, ViewParams, apply};
use serde::Deserialize;

/// The `[[view]]` tables of the file.
#[derive(Deserialize)]
struct Views {
    view: Vec<View>,
}

/// One view; without `order` there is no jitter.
#[derive(Deserialize)]
struct View {
    crop: [usize; 4],
    size: usize,
    interpolation: Interpolation,
    flip: bool,
    #[serde(default)]
    order: Vec<String>,
    #[serde(default)]
    brightness: f32,
    #[serde(default)]
    contrast: f32,
    #[serde(default)]
    saturation: f32,
    #[serde(default)]
    hue: f64,
    grayscale: bool,
    blur: Option<f32>,
    solarize: Option<u8>,
}

impl View {
    fn params(&self) -> Result<ViewParams, String> {
        let op = |name: &String| match name.as_str() {
            "brightness" => Ok(JitterOp::Brightness),
            "contrast" => Ok(JitterOp::Contrast),
            "saturation" => Ok(JitterOp::Saturation),
            "hue" => Ok(JitterOp::Hue),
            other => Err(format!("{other} is no operation of the jitter")),
        };
        let order = self.order.iter().map(op).collect::<Result<Vec<_>, _>>()?;
        let jitter = <[JitterOp; 4]>::try_from(order).ok().map(|order| Jitter {
            order,
            brightness: self.brightness,
            contrast: self.contrast,
            saturation: self.saturation,
            hue: self.hue,
        });
        let [x, y, width, height] = self.crop;
        Ok(ViewParams {
            crop: CropBox { x, y, width, height },
            size: self.size,
            interpolation: self.interpolation,
            flip: self.flip,
            jitter,
            grayscale: self.grayscale,
            blur: self.blur,
            solarize: self.solarize,
        })
    }
}

/// A binary PPM with one header line.
fn read(bytes: &[u8]) -> Option<Image> {
    let mut parts = bytes.splitn(4, |b| b.is_ascii_whitespace());
    let mut word = || std::str::from_utf8(parts.next()?).ok();
    let (magic, width, height) = (word()?, word()?.parse().ok()?, word()?.parse().ok()?);
    let pixels = parts.next()?.strip_prefix(b"255\n")?;
    (magic == "P6").then(|| Image::new(width, height, pixels.to_vec()).ok())?
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [picture, views, folder] = args.as_slice() else {
        return Err("usage: apply_views PICTURE.ppm VIEWS.toml FOLDER".into());
    };
    let image = read(&std::fs::read(picture)?).ok_or_else(|| format!("{picture} is no binary PPM of 8 bits"))?;
    let views: Views = toml::from_str(&std::fs::read_to_string(views)?)?;
    for (k, view) in views.view.iter().enumerate() {
        let out = apply(&image, &view.params()?);
        let mut bytes = format!("P6 {} {} 255\n", out.width, out.height).into_bytes();
        bytes.extend(&out.pixels);
        std::fs::write(Path::new(folder).join(format!("{k}.ppm")), bytes)?;
    }
    Ok(())
}
