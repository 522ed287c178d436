//! The launches that make views: seven for as many views as the room between the passes holds.

use candle_core::{DType, Result, Tensor};

use super::{BoxFilter, Color, Form, NAME, Picture, View};
use crate::cuda::{Arg, Gpu, Memory, modules, named};

const THREADS: usize = 256;
/// Rows of a crop that a block resamples: `ROWS` of augment.cu.
const ROWS: usize = 4;
/// Bytes for what lies between the passes; more views are made one lot after the other.
const ROOM: usize = 1 << 29;
/// Views of a lot, at most; the device takes 65,535.
const LOT: usize = 1 << 14;
/// Shared memory of a block that blurs along columns.
const COLUMN_BYTES: usize = 96 << 10;
/// Shared memory of a block that blurs along rows, but for one row too long for it.
const ROW_BYTES: usize = 24 << 10;
/// Words of 4 bytes of a `Plan` in augment_index.h.
const PLAN_WORDS: usize = 28;
/// No byte is as large.
const NEVER: u32 = 256;

pub(super) fn views(gpu: &Gpu, bytes: &Tensor, pictures: &[Picture], views: &[View], form: &Form) -> Result<Tensor> {
    within(ROOM, gpu, bytes, pictures, views, form)
}

/// The views, with at most `room` bytes between the passes, but as many as one view takes.
pub(super) fn within(
    room: usize,
    gpu: &Gpu,
    bytes: &Tensor,
    pictures: &[Picture],
    views: &[View],
    form: &Form,
) -> Result<Tensor> {
    let bytes = bytes.contiguous()?;
    let bytes = Memory::of(NAME, gpu, &bytes)?;
    let &Form { size, dtype, .. } = form;
    let out = gpu.alloc(dtype, views.len() * size * size * 3)?;
    let mut start = 0;
    while start < views.len() {
        let lot = Lot::of(room, pictures, &views[start..], size);
        let values = size * size * 3;
        lot.make(gpu, bytes, form, out.memory().part(start * values, lot.count * values))?;
        start += lot.count;
    }
    out.into_tensor((views.len(), size, size, 3))
}

/// Bytes of a row of a canvas: `stride_of`.
fn stride(size: usize) -> usize {
    size.div_ceil(4) * 12
}

/// Inputs of an output, at most.
fn most(from: usize, to: usize, bicubic: bool) -> usize {
    let reach = (from as f64 / to as f64).max(1.0) * if bicubic { 2.0 } else { 1.0 };
    reach.ceil() as usize * 2 + 1
}

/// Views that are made together.
struct Lot {
    count: usize,
    plans: Vec<u32>,
    /// Rows of the highest crop.
    highest: usize,
    /// Bytes of all resampled rows.
    between: usize,
    /// How many weights there are.
    weights: usize,
    contrasts: bool,
    blurs: bool,
}

impl Lot {
    /// As many of the views, from the first on, as there is room for.
    fn of(room: usize, pictures: &[Picture], views: &[View], size: usize) -> Self {
        let (mut lot, mut bytes) = (
            Self { count: 0, plans: Vec::new(), highest: 0, between: 0, weights: 0, contrasts: false, blurs: false },
            0,
        );
        for view in views.iter().take(LOT) {
            let [width, height] = view.extent;
            let rows = height * stride(size);
            let most = [most(width, size, view.bicubic), most(height, size, view.bicubic)];
            let weights = (most[0] + most[1]) * size;
            bytes += rows + 4 * weights + size * stride(size);
            if bytes > room && lot.count > 0 {
                break;
            }
            lot.push(pictures[view.picture], view, most);
            lot.between += rows;
            lot.weights += weights;
            lot.highest = lot.highest.max(height);
            lot.count += 1;
        }
        lot
    }

    /// Writes a `Plan` of augment_index.h.
    fn push(&mut self, picture: Picture, view: &View, most: [usize; 2]) {
        let ([x, y], [width, height]) = (view.corner, view.extent);
        let start = self.plans.len();
        let words = &mut self.plans;
        for wide in [picture.start + (y * picture.width + x) * 3, self.between, self.weights] {
            words.extend([wide as u32, (wide as u64 >> 32) as u32]);
        }
        words.extend([picture.width * 3, width, height, most[0], most[1]].map(|word| word as u32));
        words.extend([view.bicubic, view.flip].map(u32::from));
        let jitter = view.jitter.map(|color| color.and_then(code));
        words.extend(jitter.map(|color| color.map_or(0, |(code, _)| code)));
        words.extend(jitter.map(|color| color.map_or(0.0, |(_, factor)| factor).to_bits()));
        let blur = view.blur.unwrap_or(BoxFilter { radius: 0, near: 0, far: 0 });
        words.extend([
            u32::from(view.grayscale),
            u32::from(view.blur.is_some()),
            blur.radius as u32,
            blur.near,
            blur.far,
        ]);
        words.extend([view.solarize.map_or(NEVER, u32::from), 0]);
        debug_assert_eq!(words.len(), start + PLAN_WORDS, "the layout of a plan");
        self.contrasts |= jitter.iter().flatten().any(|(code, _)| *code == CONTRAST);
        self.blurs |= view.blur.is_some();
    }

    /// Makes the views into `out`.
    fn make(&self, gpu: &Gpu, bytes: Memory, form: &Form, out: Memory) -> Result<()> {
        let &Form { size, mean, std, dtype } = form;
        let plans = gpu.upload(&self.plans)?;
        let weights = gpu.alloc(DType::U32, self.weights)?;
        let spans = gpu.alloc(DType::U32, self.count * 4 * size)?;
        let between = gpu.alloc(DType::U8, self.between)?;
        let canvas = gpu.alloc(DType::U8, self.count * size * stride(size))?;
        let groups = (size * size.div_ceil(4)).div_ceil(THREADS);
        let sums = gpu.alloc(DType::F32, self.count * groups)?;
        let side = size as i32;
        let channels = || {
            let bits: Vec<u64> = mean.iter().chain(&std).map(|v| u64::from(v.to_bits())).collect();
            Arg::Struct(bits.chunks(2).map(|two| two[0] | two[1] << 32).collect())
        };
        let start = |name: &str, blocks: usize, shared: usize, args: &mut [Arg]| {
            let grid = [blocks as u32, self.count as u32, 1];
            // A kernel's own shared memory comes on top, and without asking there are 48 KB of both.
            let shared = if shared > 47 << 10 { shared + 1024 } else { shared };
            // SAFETY: `args` are those of the kernel. `check` has found that the plans stay inside of the pictures, and the room
            // between the passes was made for the plans.
            unsafe { gpu.launch(&modules::AUGMENT, name, grid, [THREADS as u32, 1, 1], shared as u32, args) }
        };

        let mut args = [(&plans).into(), side.into(), (&weights).into(), (&spans).into()];
        start("augment_weights", (2 * size).div_ceil(THREADS), 0, &mut args)?;
        let (source, table) = (bytes.into(), [&weights, &spans]);
        let mut args = [source, (&plans).into(), table[0].into(), table[1].into(), side.into(), (&between).into()];
        start("augment_rows", self.highest.div_ceil(ROWS), 0, &mut args)?;
        let source = (&between).into();
        let mut args = [source, (&plans).into(), table[0].into(), table[1].into(), side.into(), (&canvas).into()];
        start("augment_columns", (size * stride(size) / 4).div_ceil(THREADS), 0, &mut args)?;

        if self.contrasts {
            let mut args = [(&plans).into(), side.into(), (&canvas).into(), (&sums).into()];
            start("augment_gray", groups, 0, &mut args)?;
        }
        let mut args = [(&plans).into(), side.into(), (&canvas).into(), (&sums).into(), channels(), out.into()];
        start(&named("augment_color", dtype)?, groups, 0, &mut args)?;
        if self.blurs {
            let rows = (ROW_BYTES / (2 * stride(size))).clamp(1, 8);
            let mut args = [(&plans).into(), side.into(), (rows as i32).into(), (&canvas).into()];
            start("augment_blur_rows", size.div_ceil(rows), 2 * rows * stride(size), &mut args)?;
            let width = [64, 32, 16, 8].into_iter().find(|width| 2 * size * width <= COLUMN_BYTES).unwrap_or(4);
            let mut args =
                [(&plans).into(), side.into(), (width as i32).into(), (&canvas).into(), channels(), out.into()];
            let name = named("augment_blur_columns", dtype)?;
            start(&name, stride(size).div_ceil(width), 2 * size * width, &mut args)?;
        }
        Ok(())
    }
}

const CONTRAST: u32 = 2;

/// The code and factor of an operation, if it changes anything.
fn code(color: Color) -> Option<(u32, f32)> {
    let (code, factor) = match color {
        Color::Brightness(factor) => (1, factor),
        Color::Contrast(factor) => (CONTRAST, factor),
        Color::Saturation(factor) => (3, factor),
        // Even a shift of no whole step goes through HSV and back.
        Color::Hue(turns) => return (turns != 0.0).then_some((4, (turns * 255.0) as i32 as f32)),
    };
    (factor != 1.0).then_some((code, factor))
}
