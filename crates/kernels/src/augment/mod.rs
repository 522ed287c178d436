//! Random views of decoded images, made on a GPU: resized crop, flip, color jitter, grayscale, blur, solarization, normalization.
//!
//! What is random about a view is drawn before, by the same rule for every device (`ViewParams::draw` in `diptych-augment`), and comes here as a
//! [`View`]. The arithmetic is that of `diptych_augment::apply` and `normalize_into`, byte for byte: fixed-point weights, bytes between operations,
//! no two roundings fused into one. So a view made here equals the one that a CPU makes, to the bit in f32. On a CPU use that crate: this op has no path there.

use candle_core::{DType, Result, Tensor, bail};

#[cfg(feature = "cuda")]
mod cuda;
#[cfg(test)]
mod tests;

const NAME: &str = "augment";

/// The largest side of a view.
pub const MAX_SIZE: usize = 8192;
/// The largest side of a picture.
const MAX_SIDE: usize = 1 << 24;

/// Where a decoded image lies in a buffer: `[height, width, 3]` bytes of red, green and blue, row by row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Picture {
    /// Its first byte.
    pub start: usize,
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
}

/// One operation of the color jitter; a factor of 1 and a hue of 0 change nothing.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Color {
    /// Blends with black.
    Brightness(f32),
    /// Blends with the mean luma of the view as it is then.
    Contrast(f32),
    /// Blends with each pixel's own luma.
    Saturation(f32),
    /// Shifts the hue, by turns in [-0.5, 0.5].
    Hue(f64),
}

/// The box filter of which three passes along rows and three along columns are a Gaussian blur.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BoxFilter {
    /// The box has 2 `radius` + 1 values.
    pub radius: usize,
    /// Weight of a value in the box, in 2^-24.
    pub near: u32,
    /// Weight of the two values beside the box, in 2^-24.
    pub far: u32,
}

/// How one view is made, applied in the order of the fields.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct View {
    /// Which of the pictures it shows.
    pub picture: usize,
    /// Left column and upper row of the crop.
    pub corner: [usize; 2],
    /// Columns and rows of the crop.
    pub extent: [usize; 2],
    /// Whether the crop is resized by cubic interpolation rather than linear; both are antialiased.
    pub bicubic: bool,
    /// Whether the view is mirrored.
    pub flip: bool,
    /// The color jitter, in order; at most one contrast.
    pub jitter: [Option<Color>; 4],
    /// Whether the color is dropped.
    pub grayscale: bool,
    /// The blur, where there is one.
    pub blur: Option<BoxFilter>,
    /// Values from this one up are inverted.
    pub solarize: Option<u8>,
}

/// What all views of a call have in common.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Form {
    /// The side of a view, at most [`MAX_SIZE`].
    pub size: usize,
    /// Subtracted from the channels, which are scaled to [0, 1] before.
    pub mean: [f32; 3],
    /// What the channels are divided by after that.
    pub std: [f32; 3],
    /// f32, or bf16: the f32 numbers, rounded.
    pub dtype: DType,
}

/// The views `[N, size, size, 3]` of pictures that lie in `bytes` (u8, `[B]`), on its device.
///
/// The host does not wait for the device; `bytes` may be written again by what is asked of the device later.
///
/// # Errors
/// If `bytes` is not on a GPU or not u8, a picture is not inside of it, a crop not inside of its picture, or the form is none.
pub fn views(bytes: &Tensor, pictures: &[Picture], views: &[View], form: &Form) -> Result<Tensor> {
    check(bytes, pictures, views, form)?;
    #[cfg(feature = "cuda")]
    if let Some(gpu) = crate::cuda::Gpu::of(bytes) {
        return cuda::views(&gpu, bytes, pictures, views, form);
    }
    bail!("{NAME}: the pictures are on the CPU; there, diptych_augment::apply makes the views")
}

/// All that the kernels rely on to stay inside of memory.
fn check(bytes: &Tensor, pictures: &[Picture], views: &[View], form: &Form) -> Result<()> {
    if bytes.dtype() != DType::U8 || bytes.rank() != 1 {
        bail!("{NAME}: the pictures are {:?} {:?}; expected bytes, U8 [B]", bytes.dtype(), bytes.dims())
    }
    let &Form { size, dtype, .. } = form;
    if !(1..=MAX_SIZE).contains(&size) || !matches!(dtype, DType::F32 | DType::BF16) {
        bail!("{NAME}: views of {size} pixels in {dtype:?}; expected 1 to {MAX_SIZE} pixels, in F32 or BF16")
    }
    let len = bytes.elem_count();
    for (i, &Picture { start, width, height }) in pictures.iter().enumerate() {
        let sides = 1..=MAX_SIDE;
        let end = (width * 3).checked_mul(height).and_then(|bytes| bytes.checked_add(start));
        if !sides.contains(&width) || !sides.contains(&height) || end.is_none_or(|end| end > len) {
            bail!("{NAME}: picture {i}, {width}x{height} from byte {start} on, is not inside of {len} bytes")
        }
    }
    for (i, view) in views.iter().enumerate() {
        let Some(picture) = pictures.get(view.picture) else {
            bail!("{NAME}: view {i} shows picture {} of {}", view.picture, pictures.len())
        };
        let ([x, y], [width, height]) = (view.corner, view.extent);
        let fits = |start: usize, extent: usize, side: usize| extent >= 1 && extent <= side && start <= side - extent;
        if !fits(x, width, picture.width) || !fits(y, height, picture.height) {
            bail!(
                "{NAME}: view {i} is a crop of {width}x{height} at ({x}, {y}), not inside of a picture of {}x{}",
                picture.width,
                picture.height
            )
        }
        if view.jitter.iter().flatten().filter(|color| matches!(color, Color::Contrast(_))).count() > 1 {
            bail!("{NAME}: view {i} has more than one contrast")
        }
        if view.blur.is_some_and(|blur| blur.radius > MAX_SIZE) {
            bail!("{NAME}: view {i} is blurred over more than {MAX_SIZE} pixels")
        }
    }
    Ok(())
}
