//! The filters of resampling.

use crate::recipe::Interpolation;

impl Interpolation {
    /// How far the filter reaches, in inputs on each side; times the shrinkage where a picture shrinks.
    pub(crate) fn reach(self) -> f64 {
        match self {
            Self::Bilinear => 1.0,
            Self::Bicubic => 2.0,
        }
    }

    /// Its weight at a distance of `x` inputs.
    #[inline(always)]
    pub(crate) fn weight(self, x: f64) -> f64 {
        match self {
            Self::Bilinear => triangle(x),
            Self::Bicubic => cubic(x),
        }
    }
}

#[inline(always)]
pub(crate) fn triangle(x: f64) -> f64 {
    (1.0 - x.abs()).max(0.0)
}

/// Keys 1981 with a = -0.5.
#[inline(always)]
pub(crate) fn cubic(x: f64) -> f64 {
    const A: f64 = -0.5;
    let x = x.abs();
    // Both pieces before the choice: so it is one of values, and many run side by side.
    let near = ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0;
    let far = (((x - 5.0) * x + 8.0) * x - 4.0) * A;
    let far = if x < 2.0 { far } else { 0.0 };
    if x < 1.0 { near } else { far }
}
