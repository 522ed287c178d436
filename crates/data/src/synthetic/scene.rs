//! What stands in a picture: the class decides the shape, chance decides everything else.

use diptych_augment::Image;
use diptych_random::Stream;

use super::canvas::{Canvas, Color};
use super::shape::{Shape, fraction, window};

/// Draws one picture of `shape`.
pub(super) fn draw(shape: Shape, size: usize, stream: &mut Stream) -> Image {
    let palette = Palette::draw(stream);
    let clouds = stream.range(0.01, 0.06) as f32;
    let mut canvas = Canvas::background(size, &palette.ground, clouds, stream);
    for _ in 0..stream.below(4) {
        distract(&mut canvas, size, &palette, stream);
    }
    for (center, radius) in placement(shape, stream) {
        put(&mut canvas, size, shape, center, radius, &palette, stream);
    }
    let [x, y] = direction(stream);
    let slope = stream.range(0.0, 0.55) as f32;
    canvas.light([slope * x, slope * y]);
    canvas.blur(stream.range(0.0, 0.1) as f32);
    canvas.finish(stream.range(0.015, 0.04) as f32, stream)
}

/// The colors of one picture: strong from picture to picture, and told nothing by the class.
struct Palette {
    /// The corners of the background: top left, top right, bottom left, bottom right.
    ground: [Color; 4],
    /// The brightness around which the background lies.
    level: f32,
    /// The hues of things, in turns.
    hues: [f32; 2],
}

impl Palette {
    fn draw(stream: &mut Stream) -> Self {
        let level = stream.range(0.4, 0.6) as f32;
        let hue = stream.uniform() as f32;
        let saturation = stream.range(0.2, 0.9) as f32;
        let ground = std::array::from_fn(|_| {
            let shift = stream.range(-0.06, 0.06) as f32;
            let brightness = level + stream.range(-0.05, 0.05) as f32;
            tint(hue + shift, saturation, brightness)
        });
        Self { ground, level, hues: std::array::from_fn(|_| stream.uniform() as f32) }
    }

    /// A color of the palette that is darker or lighter than the background by `contrast`, whatever its hue.
    fn ink(&self, lighter: bool, contrast: f32, stream: &mut Stream) -> Color {
        let hue = self.hues[stream.below(2) as usize] + stream.range(-0.04, 0.04) as f32;
        let brightness = if lighter { self.level + contrast } else { self.level - contrast };
        tint(hue, stream.range(0.3, 1.0) as f32, brightness)
    }
}

/// Centers and radii of the objects of one picture, apart from each other, in units of the picture's side.
fn placement(shape: Shape, stream: &mut Stream) -> Vec<([f32; 2], f32)> {
    let (wanted, radii) =
        if shape.is_texture() { (2 + stream.below(2), [0.23, 0.34]) } else { (3 + stream.below(3), [0.16, 0.25]) };
    let mut placed: Vec<([f32; 2], f32)> = Vec::with_capacity(wanted as usize);
    for attempt in 0..40 {
        if placed.len() == wanted as usize {
            break;
        }
        // Later attempts are smaller, so that they find a place.
        let high = radii[1] - (radii[1] - radii[0]) * f64::from(attempt) / 40.0;
        let radius = stream.range(radii[0], high) as f32;
        let center = [stream.range(0.1, 0.9) as f32, stream.range(0.1, 0.9) as f32];
        let free = placed.iter().all(|&(other, r)| {
            let (dx, dy) = (other[0] - center[0], other[1] - center[1]);
            let apart = (r + radius) * 0.95;
            dx * dx + dy * dy >= apart * apart
        });
        if free {
            placed.push((center, radius));
        }
    }
    placed
}

/// Paints one object, turned by any angle, in colors of the palette.
fn put(
    canvas: &mut Canvas,
    size: usize,
    shape: Shape,
    center: [f32; 2],
    radius: f32,
    palette: &Palette,
    stream: &mut Stream,
) {
    let [cos, sin] = direction(stream);
    // One pixel in units of the object: the width of its anti-aliased edge.
    let soft = 1.0 / (radius * size as f32);
    let local = move |x: f32, y: f32| {
        let (x, y) = ((x - center[0]) / radius, (y - center[1]) / radius);
        (cos * x + sin * y, cos * y - sin * x)
    };
    let cover = move |distance: f32| (0.5 - distance / soft).clamp(0.0, 1.0);
    let lighter = stream.bernoulli(0.5);
    let contrast = stream.range(0.26, 0.4) as f32;
    let ink = palette.ink(lighter, contrast, stream);
    // The farthest corner is that of a square window, at 1.27.
    let reach = radius * 1.27 + 1.0 / size as f32;
    if shape.is_texture() {
        let period = (stream.range(0.15, 0.19) as f32) / radius;
        let [px, py] =
            if shape == Shape::Targets { [0.0; 2] } else { [(); 2].map(|()| stream.uniform() as f32 * period) };
        let roundness = stream.uniform() as f32;
        let paper = palette.ink(!lighter, stream.range(0.1, 0.3) as f32, stream);
        canvas.paint(center, reach, paper, |x, y| {
            let (x, y) = local(x, y);
            cover(window(x, y, roundness))
        });
        canvas.paint(center, reach, ink, |x, y| {
            let (x, y) = local(x, y);
            cover(window(x, y, roundness)) * cover(shape.distance(x + px, y + py, period))
        });
    } else {
        canvas.paint(center, reach, ink, |x, y| {
            let (x, y) = local(x, y);
            cover(shape.distance(x, y, 1.0))
        });
    }
}

/// Paints something faint that any class may have: a line or a soft blob.
fn distract(canvas: &mut Canvas, size: usize, palette: &Palette, stream: &mut Stream) {
    let center = [stream.uniform() as f32, stream.uniform() as f32];
    let lighter = stream.bernoulli(0.5);
    let contrast = stream.range(0.1, 0.25) as f32;
    let ink = palette.ink(lighter, contrast, stream);
    let strength = stream.range(0.25, 0.6) as f32;
    if stream.bernoulli(0.5) {
        let [cos, sin] = direction(stream);
        let half_width = stream.range(0.008, 0.02) as f32;
        let half_length = stream.range(0.1, 0.4) as f32;
        canvas.paint(center, half_length + 0.05, ink, |x, y| {
            let (x, y) = (x - center[0], y - center[1]);
            let distance = ((cos * y - sin * x).abs() - half_width).max((cos * x + sin * y).abs() - half_length);
            strength * (0.5 - distance * size as f32).clamp(0.0, 1.0)
        });
    } else {
        let radius = stream.range(0.1, 0.3) as f32;
        canvas.paint(center, radius, ink, |x, y| {
            let (x, y) = ((x - center[0]) / radius, (y - center[1]) / radius);
            let fall = (1.0 - x * x - y * y).max(0.0);
            strength * fall * fall
        });
    }
}

/// A uniformly random unit vector, by rejection: no sine, so no difference between machines.
fn direction(stream: &mut Stream) -> [f32; 2] {
    loop {
        let (x, y) = (stream.range(-1.0, 1.0), stream.range(-1.0, 1.0));
        let square = x * x + y * y;
        if square > 0.01 && square <= 1.0 {
            let length = square.sqrt();
            return [(x / length) as f32, (y / length) as f32];
        }
    }
}

/// The color of a hue (in turns) and a saturation whose luma (Rec. 601) is `brightness`.
fn tint(hue: f32, saturation: f32, brightness: f32) -> Color {
    let channel = |shift: f32| {
        let t = fraction(hue + shift) * 6.0;
        ((t - 3.0).abs() - 1.0).clamp(0.0, 1.0)
    };
    let pure = [channel(0.0), channel(2.0 / 3.0), channel(1.0 / 3.0)];
    let luma = 0.299 * pure[0] + 0.587 * pure[1] + 0.114 * pure[2];
    // Saturation gives way where a channel would leave [0, 1].
    let room = pure.iter().fold(saturation * 0.6, |room, &p| {
        let away = p - luma;
        let limit = if away > 0.0 { (1.0 - brightness) / away } else { brightness / -away.min(-1e-6) };
        room.min(limit)
    });
    pure.map(|p| brightness + room * (p - luma))
}
