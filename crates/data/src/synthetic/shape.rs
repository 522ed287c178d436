//! The ten things that can be drawn, as signed distances: negative inside, positive outside.
//!
//! Distances are those of a shape of radius about 1 around the origin; only `+ - * /`, `sqrt`, `abs` and `floor` are
//! used, which IEEE 754 fixes to the last bit, so that a picture is the same on every machine.

/// What an object is: the class of a picture is the shape of its objects, and nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    Disc,
    Ring,
    Triangle,
    Square,
    Star,
    Cross,
    Crescent,
    Stripes,
    Checkers,
    Dots,
}

impl Shape {
    /// All shapes, in the order of the classes.
    pub(super) const ALL: [Self; 10] = [
        Self::Disc,
        Self::Ring,
        Self::Triangle,
        Self::Square,
        Self::Star,
        Self::Cross,
        Self::Crescent,
        Self::Stripes,
        Self::Checkers,
        Self::Dots,
    ];

    /// The name of the class.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Disc => "disc",
            Self::Ring => "ring",
            Self::Triangle => "triangle",
            Self::Square => "square",
            Self::Star => "star",
            Self::Cross => "cross",
            Self::Crescent => "crescent",
            Self::Stripes => "stripes",
            Self::Checkers => "checkers",
            Self::Dots => "dots",
        }
    }

    /// Whether the shape is a patch of texture rather than an outline.
    pub(super) const fn is_texture(self) -> bool {
        matches!(self, Self::Stripes | Self::Checkers | Self::Dots)
    }

    /// The signed distance of (x, y) from the edge of an outline; for a texture, from the edge of its marks, which
    /// repeat with `period` and fill the plane.
    pub(super) fn distance(self, x: f32, y: f32, period: f32) -> f32 {
        match self {
            Self::Disc => length(x, y) - 0.84,
            Self::Ring => (length(x, y) - 0.74).abs() - 0.21,
            Self::Triangle => (-y).max(0.866_025_4 * x.abs() + 0.5 * y) - 0.58,
            Self::Square => x.abs().max(y.abs()) - 0.74,
            Self::Star => star(x, y),
            Self::Cross => {
                let bar = |a: f32, b: f32| (a.abs() - 0.98).max(b.abs() - 0.27);
                bar(x, y).min(bar(y, x))
            }
            Self::Crescent => (length(x + 0.15, y) - 0.98).max(0.78 - length(x - 0.4, y)),
            Self::Stripes => period * wave(x / period),
            Self::Checkers => {
                let (a, b) = (wave(x / period), wave(y / period));
                let nearest = a.abs().min(b.abs()) * period;
                if (a < 0.0) == (b < 0.0) { -nearest } else { nearest }
            }
            Self::Dots => {
                let centred = |t: f32| (t / period - (t / period).floor() - 0.5) * period;
                length(centred(x), centred(y)) - 0.31 * period
            }
        }
    }
}

/// The signed distance from the region that a texture fills: between a disc (`roundness` 1) and a square (0).
pub(super) fn window(x: f32, y: f32, roundness: f32) -> f32 {
    let square = x.abs().max(y.abs()) * 1.12;
    roundness * length(x, y) + (1.0 - roundness) * square - 1.0
}

/// A triangle wave of period 1 between -1/4 and 1/4, with slope 1: the distance from the edge of alternating bands.
fn wave(t: f32) -> f32 {
    (t - t.floor() - 0.5).abs() - 0.25
}

/// A star of five points (Inigo Quilez, "2D distance functions": fold the plane into one half point).
fn star(x: f32, y: f32) -> f32 {
    const COS: f32 = 0.809_017;
    const SIN: f32 = 0.587_785_24;
    const INNER: f32 = 0.45;
    let (mut x, mut y) = (x.abs(), y);
    let fold = (COS * x - SIN * y).max(0.0) * 2.0;
    (x, y) = (x - fold * COS, y + fold * SIN);
    let fold = (-COS * x - SIN * y).max(0.0) * 2.0;
    (x, y) = (x + fold * COS, y + fold * SIN);
    (x, y) = (x.abs(), y - 1.08);
    let (edge_x, edge_y) = (INNER * SIN, INNER * COS - 1.0);
    let along = ((x * edge_x + y * edge_y) / (edge_x * edge_x + edge_y * edge_y)).clamp(0.0, 1.08);
    let distance = length(x - edge_x * along, y - edge_y * along);
    if y * edge_x < x * edge_y { -distance } else { distance }
}

fn length(x: f32, y: f32) -> f32 {
    (x * x + y * y).sqrt()
}
