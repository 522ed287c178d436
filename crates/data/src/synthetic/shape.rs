//! The ten things that can be drawn, as signed distances: negative inside, positive outside.
//!
//! Distances are those of a shape of radius about 1 around the origin; only `+ - * /`, `sqrt`, `abs` and rounding are
//! used, which IEEE 754 fixes to the last bit, so that a picture is the same on every machine.

/// What an object is: the class of a picture is the shape of its objects, and nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    Disc,
    Ring,
    Triangle,
    Cross,
    Bar,
    Stripes,
    Zigzags,
    Checkers,
    Dots,
    Targets,
}

impl Shape {
    /// All shapes, in the order of the classes.
    pub(super) const ALL: [Self; 10] = [
        Self::Disc,
        Self::Ring,
        Self::Triangle,
        Self::Cross,
        Self::Bar,
        Self::Stripes,
        Self::Zigzags,
        Self::Checkers,
        Self::Dots,
        Self::Targets,
    ];

    /// The name of the class.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Disc => "discs",
            Self::Ring => "rings",
            Self::Triangle => "triangles",
            Self::Cross => "crosses",
            Self::Bar => "bars",
            Self::Stripes => "stripes",
            Self::Zigzags => "zigzags",
            Self::Checkers => "checkers",
            Self::Dots => "dots",
            Self::Targets => "targets",
        }
    }

    /// Whether the shape is a texture that fills a patch rather than an outline.
    pub(super) const fn is_texture(self) -> bool {
        matches!(self, Self::Stripes | Self::Zigzags | Self::Checkers | Self::Dots | Self::Targets)
    }

    /// The signed distance of (x, y) from the edge of an outline; for a texture, from the edge of its marks, which
    /// repeat with `period` and fill the plane.
    pub(super) fn distance(self, x: f32, y: f32, period: f32) -> f32 {
        match self {
            Self::Disc => length(x, y) - 0.84,
            Self::Ring => (length(x, y) - 0.74).abs() - 0.21,
            Self::Triangle => (-y).max(0.866_025_4 * x.abs() + 0.5 * y) - 0.58,
            Self::Cross => {
                let bar = |a: f32, b: f32| (a.abs() - 0.98).max(b.abs() - 0.27);
                bar(x, y).min(bar(y, x))
            }
            Self::Bar => (x.abs() - 1.15).max(y.abs() - 0.22),
            Self::Stripes => period * wave(x / period),
            Self::Zigzags => {
                let bend = 1.7 * period;
                // The bands run at 45 degrees, so their width is sqrt(1/2) of that along x.
                std::f32::consts::FRAC_1_SQRT_2 * period * wave((x + bend * wave(y / bend)) / period)
            }
            Self::Checkers => {
                let (a, b) = (wave(x / period), wave(y / period));
                let nearest = a.abs().min(b.abs()) * period;
                if (a < 0.0) == (b < 0.0) { -nearest } else { nearest }
            }
            Self::Dots => {
                let centered = |t: f32| (fraction(t / period) - 0.5) * period;
                length(centered(x), centered(y)) - 0.27 * period
            }
            Self::Targets => period * wave(length(x, y) / period),
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
    (fraction(t) - 0.5).abs() - 0.25
}

/// `t` less the whole number below it; a cast, since `floor` is a function call where SSE 4.1 is not taken for granted.
pub(super) fn fraction(t: f32) -> f32 {
    let rest = t - t as i32 as f32;
    if rest < 0.0 { rest + 1.0 } else { rest }
}

fn length(x: f32, y: f32) -> f32 {
    (x * x + y * y).sqrt()
}
