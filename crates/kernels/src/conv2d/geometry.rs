//! The sizes of a convolution, and which source row belongs to which output pixel and tap.

/// The sizes of a convolution: `x` `[n, h, w, c]`, weights `[o, kh, kw, c]`, `y` `[n, oh, ow, o]`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Geometry {
    pub(crate) n: usize,
    pub(crate) h: usize,
    pub(crate) w: usize,
    pub(crate) c: usize,
    pub(crate) o: usize,
    pub(crate) kh: usize,
    pub(crate) kw: usize,
    pub(crate) stride: usize,
    pub(crate) padding: usize,
    pub(crate) oh: usize,
    pub(crate) ow: usize,
}

/// One tap of a phase: its place in the kernel, and where its source row lies relative to the pixel's.
struct Tap {
    index: usize,
    down: isize,
    right: isize,
}

/// The output pixels that share a set of taps, and where they and their sources lie.
pub(crate) struct Phase {
    /// Pixels of this phase in one image.
    pub(crate) pixels: usize,
    /// For each pixel of one image, its row in the output image.
    pub(crate) out: Vec<u32>,
    /// `[taps, pixels]`: the source row in the source image, or -1 where it is padding.
    pub(crate) source: Vec<i32>,
    /// The place of each tap in the kernel.
    pub(crate) taps: Vec<usize>,
}

impl Phase {
    /// `from` + a * `step` for a < `count` are the output rows (`count`s and `from`s are of rows, then columns); the
    /// source of pixel (a, b) for a tap is (a, b) * `source_step` + (down, right).
    fn new(
        from: [usize; 2],
        step: usize,
        count: [usize; 2],
        out_width: usize,
        source: [usize; 2],
        source_step: usize,
        taps: &[Tap],
    ) -> Self {
        let pixels = count[0] * count[1];
        let mut out = Vec::with_capacity(pixels);
        for a in 0..count[0] {
            out.extend((0..count[1]).map(|b| ((from[0] + a * step) * out_width + from[1] + b * step) as u32));
        }
        let mut table = Vec::with_capacity(pixels * taps.len());
        for tap in taps {
            for a in 0..count[0] {
                let row = (a * source_step) as isize + tap.down;
                table.extend((0..count[1]).map(|b| {
                    let col = (b * source_step) as isize + tap.right;
                    let inside = (0..source[0] as isize).contains(&row) && (0..source[1] as isize).contains(&col);
                    if inside { (row * source[1] as isize + col) as i32 } else { -1 }
                }));
            }
        }
        Self { pixels, out, source: table, taps: taps.iter().map(|t| t.index).collect() }
    }

    /// Whether pixel p of a batch reads source row p and writes output row p, with a single tap: a matrix product. `rows` are those of a
    /// source image and of an output image: where either has more than the phase's pixels, its second image begins further on.
    pub(crate) fn is_identity(&self, rows: [usize; 2]) -> bool {
        self.taps.len() == 1
            && rows == [self.pixels; 2]
            && self.source.iter().zip(&self.out).enumerate().all(|(i, (&s, &o))| s == i as i32 && o == i as u32)
    }
}

/// Source images: `rows` rows each, `width` values from one to the next.
#[derive(Clone, Copy)]
pub(crate) struct Source<'a> {
    pub(crate) data: &'a [f32],
    pub(crate) rows: usize,
    pub(crate) width: usize,
}

impl Geometry {
    /// The size of the output for these sizes of input, kernel, stride and padding, if there is one.
    pub(crate) fn out_size(input: usize, kernel: usize, stride: usize, padding: usize) -> Option<usize> {
        Some((input + 2 * padding).checked_sub(kernel)? / stride + 1)
    }

    /// The forward pass's only phase.
    pub(crate) fn forward_phase(&self) -> Phase {
        let taps: Vec<Tap> = (0..self.kh * self.kw)
            .map(|index| Tap {
                index,
                down: (index / self.kw) as isize - self.padding as isize,
                right: (index % self.kw) as isize - self.padding as isize,
            })
            .collect();
        Phase::new([0, 0], 1, [self.oh, self.ow], self.ow, [self.h, self.w], self.stride, &taps)
    }

    /// The same convolution of images that were given a border of zeros, where a row of the kernel is one tap and its `kw`
    /// pixels one row of source channels.
    pub(crate) fn bordered(&self) -> (Self, Phase) {
        let g = Self { h: self.h + 2 * self.padding, w: self.w + 2 * self.padding, padding: 0, ..*self };
        let taps: Vec<Tap> = (0..g.kh).map(|index| Tap { index, down: index as isize, right: 0 }).collect();
        let phase = Phase::new([0, 0], 1, [g.oh, g.ow], g.ow, [g.h, g.w], g.stride, &taps);
        (g, phase)
    }

    /// The input gradient's phases: input pixel i gets from output pixel (i + padding - tap) / stride where that is whole.
    pub(crate) fn backward_phases(&self) -> Vec<Phase> {
        let s = self.stride as isize;
        let offsets = |start: usize, kernel: usize| -> Vec<(usize, isize)> {
            (0..kernel)
                .map(|k| (k, (start + self.padding) as isize - k as isize))
                .filter(|(_, d)| d.rem_euclid(s) == 0)
                .map(|(k, d)| (k, d.div_euclid(s)))
                .collect()
        };
        let mut phases = Vec::new();
        for top in 0..self.stride.min(self.h) {
            for left in 0..self.stride.min(self.w) {
                let mut taps = Vec::new();
                for &(i, down) in &offsets(top, self.kh) {
                    for &(j, right) in &offsets(left, self.kw) {
                        taps.push(Tap { index: i * self.kw + j, down, right });
                    }
                }
                let count = [(self.h - top).div_ceil(self.stride), (self.w - left).div_ceil(self.stride)];
                phases.push(Phase::new([top, left], self.stride, count, self.w, [self.oh, self.ow], 1, &taps));
            }
        }
        phases
    }
}
