//! The three products of a linear layer for AVX-512, each weight read (or its gradient written) once.
//!
//! Value and input gradient: a task has a few hundred outputs and walks the sum in parts of 128 steps; in each it copies
//! the rows' part into words and packs weights, of which 32 KB, a part for 64 outputs, stay in the first-level cache while
//! all rows pass by. Meanwhile the next weights are asked for, so that memory, which is the limit below about 64
//! rows, never waits for products. The weight gradient is a sum over few rows: a task packs its outputs' gradients once
//! and writes whole rows of the result, around the caches.

use std::arch::x86_64::_mm_sfence;
use std::cell::RefCell;
use std::ops::Range;

use rayon::prelude::*;

use super::cpu::Extents;
use crate::words::kernels::{Ahead, MOST, Outer, Part, Tile, dot, fma};
use crate::words::weights::{by_input, by_output};
use crate::words::{BLOCK, Line, Unit, Values, last_mask};

/// Steps of a part of the sum.
const PART: usize = 128;
/// Values of a row of weights that are packed together: two kilobytes.
const WIDE: usize = 512;
/// Sums that a task keeps: 1 MB.
const SUMS: usize = 1 << 18;
/// Tasks that a call is cut into where its size allows.
const TASKS: usize = 16;
/// The most rows whose outer products are added in registers before they are stored.
const ROWS: usize = 1024;

#[derive(Default)]
struct Scratch {
    /// The rows' words.
    rows: Vec<Line>,
    /// Weights, or the other side's words.
    panel: Vec<Line>,
    sums: Vec<Line>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

fn grow(lines: &mut Vec<Line>, len: usize) {
    if lines.len() < len {
        lines.resize(len, Line::ZERO);
    }
}

/// Where tasks write.
#[derive(Clone, Copy)]
struct Out<T>(*mut T);

impl<T> Out<T> {
    /// The first element. (A closure that reads the field would capture the pointer alone.)
    fn start(&self) -> *mut T {
        self.0
    }
}

// SAFETY: tasks on different threads write different elements.
unsafe impl<T> Send for Out<T> {}
// SAFETY: as above; nothing reads through it.
unsafe impl<T> Sync for Out<T> {}

/// `a` `[rows, inner]` times `w`, `[outputs, inner]` if `along`, else `[inner, outputs]`: `[rows, outputs]`, each value as
/// `finish(column, sum)` makes it.
///
/// # Panics
/// If a slice does not hold its matrix.
pub(super) fn product<T: Send + Copy>(
    unit: Unit,
    a: Values,
    w: &[f32],
    [rows, inner, outputs]: [usize; 3],
    along: bool,
    finish: impl Fn(usize, f32) -> T + Sync,
) -> Vec<T> {
    assert!(a.len() == rows * inner && w.len() == inner * outputs, "linear: lengths");
    // Few outputs are shared out by rows too, at the price of packing weights once more for each share.
    let blocks = outputs.div_ceil(BLOCK);
    let chunks = (TASKS / blocks).clamp(1, rows.div_ceil(96));
    let chunk = rows.div_ceil(chunks.max(rows.div_ceil(SUMS / BLOCK))).next_multiple_of(12);
    let chunks = rows.div_ceil(chunk);
    let tasks = if along { TASKS } else { 4 };
    let group = (blocks * chunks / tasks).clamp(1, (SUMS / BLOCK / chunk).clamp(1, 8));
    let groups = blocks.div_ceil(group);
    let mut y: Vec<T> = Vec::with_capacity(rows * outputs);
    let out = Out(y.as_mut_ptr());
    (0..groups * chunks).into_par_iter().with_max_len(1).for_each(|task| {
        let (columns, chunk) = {
            let (first, row) = (task / chunks * group * BLOCK, task % chunks * chunk);
            (first..(first + group * BLOCK).min(outputs), row..(row + chunk).min(rows))
        };
        SCRATCH.with_borrow_mut(|scratch| {
            sums(unit, a, w, [inner, outputs], along, columns.clone(), chunk.clone(), scratch);
            let padded = chunk.len() + MOST - 1;
            let sums: *const f32 = scratch.sums.as_ptr().cast();
            for (i, row) in chunk.enumerate() {
                for first in columns.clone().step_by(BLOCK) {
                    let at = ((first - columns.start) / BLOCK * padded + i) * BLOCK;
                    for k in 0..(columns.end - first).min(BLOCK) {
                        // SAFETY: `sums` are `[blocks, padded, BLOCK]`; the element of y is this task's alone.
                        unsafe { *out.start().add(row * outputs + first + k) = finish(first + k, *sums.add(at + k)) };
                    }
                }
            }
        });
    });
    // SAFETY: the tasks partition columns and rows, and each wrote its share.
    unsafe { y.set_len(rows * outputs) };
    y
}

/// The sums of these columns and rows, in `scratch.sums`, `[blocks, padded rows, BLOCK]`.
#[allow(clippy::too_many_arguments)]
fn sums(
    unit: Unit,
    a: Values,
    w: &[f32],
    [inner, outputs]: [usize; 2],
    along: bool,
    columns: Range<usize>,
    chunk: Range<usize>,
    scratch: &mut Scratch,
) {
    let (rows, padded) = (chunk.len(), chunk.len() + MOST - 1);
    let blocks = columns.len().div_ceil(BLOCK);
    // Weights are packed two kilobytes of each of their rows at a time, or memory would be read in pieces too short for it:
    // several parts for one block where the sum goes along their rows, one part for all blocks where the outputs do.
    let (parts, together) = if along { (WIDE / PART / unit.values(), 1) } else { (1, blocks) };
    // One line more than the words fill, so that rows do not fall on the same sets of the cache.
    let apart = parts * PART / 16 + 1;
    grow(&mut scratch.rows, rows * apart);
    grow(&mut scratch.panel, parts * together * PART * BLOCK / 16);
    grow(&mut scratch.sums, blocks * padded * BLOCK / 16);
    let row = |i: usize| scratch.rows[i.min(rows - 1) * apart..].as_ptr().cast();
    let from: Vec<*const u32> = (0..padded).map(row).collect();
    let depth = parts * PART * unit.values();
    for first in (0..inner).step_by(depth) {
        let inputs = (inner - first).min(depth);
        let steps = inputs.div_ceil(unit.values());
        for (i, row) in chunk.clone().enumerate() {
            a.along(unit, row * inner + first, inputs, &mut scratch.rows[i * apart..][..apart - 1]);
        }
        for block in 0..blocks {
            let column = columns.start + block * BLOCK;
            let used = (columns.end - column).min(BLOCK);
            let vectors = used.div_ceil(16);
            // SAFETY: kernels on words are chosen on machines that have them; the panel is as long as was made sure of above.
            unsafe {
                if along {
                    by_input(unit, &w[column * inner + first..], inputs, used, inner, &mut scratch.panel);
                } else if block == 0 {
                    let w = &w[first * outputs + column..];
                    by_output(unit, w, inputs, columns.len(), outputs, &mut scratch.panel);
                }
            }
            let panel = &scratch.panel[block % together * BLOCK / 16 * steps..][..steps * vectors];
            let tile = Tile {
                from: &from,
                zeros: std::ptr::null(),
                count: rows,
                padded,
                // SAFETY: room for this block was made above.
                sums: unsafe { scratch.sums.as_mut_ptr().cast::<f32>().add(block * padded * BLOCK) },
            };
            for (i, start) in (0..steps).step_by(PART).enumerate() {
                // Of the weights that are packed next, this part's share is asked for.
                let next =
                    |row: usize, column: usize, width: usize| w.as_ptr().wrapping_add(row * width + column).cast();
                let ahead = if along {
                    let (row, column) = match block + 1 < blocks {
                        true => (column + BLOCK, first),
                        false => (columns.start, first + depth),
                    };
                    let share = BLOCK / parts;
                    Ahead {
                        next: next(row + i * share, column, inner),
                        rows: share,
                        lines: WIDE / 16,
                        apart: 4 * inner,
                    }
                } else {
                    let share = depth.div_ceil(blocks);
                    let row = first + depth + block * share;
                    let lines = columns.len().div_ceil(16);
                    Ahead { next: next(row, columns.start, outputs), rows: share, lines, apart: 4 * outputs }
                };
                let steps = (steps - start).min(PART);
                let panel = &panel[start * vectors..][..steps * vectors];
                let first = first + start == 0;
                let part = Part { taps: 0..1, start, steps, odd: false, panel, ahead, first, end: None };
                // SAFETY: as above; rows, panel and sums hold what the part asks for.
                unsafe {
                    match unit {
                        Unit::Dot => dot::tile(&tile, &part, vectors),
                        Unit::F32 | Unit::Fma => fma::tile(&tile, &part, vectors),
                    }
                }
            }
        }
    }
}

/// `dw = dy^T x`, `[outputs, inputs]`.
///
/// # Panics
/// If a slice does not hold its matrix.
pub(super) fn weight_gradient(unit: Unit, dy: Values, x: Values, e: Extents) -> Vec<f32> {
    assert!(dy.len() == e.rows * e.outputs && x.len() == e.rows * e.inputs, "linear: lengths");
    let mut dw: Vec<f32> = Vec::with_capacity(e.outputs * e.inputs);
    let out = Out(dw.as_mut_ptr());
    // Columns before the first that lies on a cache line; with whole lines between rows, it does in every row.
    let head = match e.inputs % 16 {
        0 => (out.start().align_offset(64)).min(15),
        _ => 0,
    };
    let stream = e.inputs.is_multiple_of(16) && e.rows <= ROWS;
    let range = (e.outputs / TASKS).clamp(72, 192).next_multiple_of(12);
    (0..e.outputs.div_ceil(range)).into_par_iter().with_max_len(1).for_each(|task| {
        let outputs = task * range..((task + 1) * range).min(e.outputs);
        SCRATCH.with_borrow_mut(|scratch| {
            for first in (0..e.rows).step_by(ROWS) {
                let rows = first..(first + ROWS).min(e.rows);
                // SAFETY: these rows of dw are this task's alone.
                unsafe {
                    outer(unit, dy, x, e, rows, outputs.clone(), [head, usize::from(stream)], scratch, out.start())
                };
            }
        });
        // SAFETY: every x86-64 has the instruction.
        unsafe { _mm_sfence() };
    });
    // SAFETY: the tasks partition the rows of dw, and each wrote its rows whole.
    unsafe { dw.set_len(e.outputs * e.inputs) };
    dw
}

/// Writes (for the first rows) or adds the outer products of these rows to these outputs' rows of `dw`.
///
/// # Safety
/// `dw` has room for `[outputs, inputs]`, of which these rows are the caller's alone.
#[allow(clippy::too_many_arguments)]
unsafe fn outer(
    unit: Unit,
    dy: Values,
    x: Values,
    e: Extents,
    rows: Range<usize>,
    outputs: Range<usize>,
    [head, stream]: [usize; 2],
    scratch: &mut Scratch,
    dw: *mut f32,
) {
    let steps = rows.len().div_ceil(unit.values());
    let apart = outputs.len().div_ceil(16) + 1;
    grow(&mut scratch.rows, steps * apart);
    for step in 0..steps {
        let at = [rows.start + step * unit.values(), outputs.start];
        let to = &mut scratch.rows[step * apart..][..apart - 1];
        dy.across(unit, at, [rows.end, e.outputs], outputs.len(), to);
    }
    // Four blocks of columns at a time, so that each row of dw is written a kilobyte at a time.
    const SIDE: usize = 4;
    grow(&mut scratch.panel, steps * SIDE * BLOCK / 16);
    let mut blocks: Vec<(usize, usize)> = Vec::new();
    if head > 0 {
        blocks.push((0, head));
    }
    blocks.extend((head..e.inputs).step_by(BLOCK).map(|column| (column, (e.inputs - column).min(BLOCK))));
    for blocks in blocks.chunks(SIDE) {
        for (i, &(column, used)) in blocks.iter().enumerate() {
            let vectors = used.div_ceil(16);
            let panel = &mut scratch.panel[i * steps * BLOCK / 16..][..steps * vectors];
            for (step, to) in panel.chunks_exact_mut(vectors).enumerate() {
                let at = [rows.start + step * unit.values(), column];
                x.across(unit, at, [rows.end, e.inputs], used, to);
            }
        }
        for first in (0..outputs.len()).step_by(12) {
            for (i, &(column, used)) in blocks.iter().enumerate() {
                let outer = Outer {
                    x: scratch.panel[i * steps * BLOCK / 16..].as_ptr(),
                    // SAFETY: the column lies in the panel.
                    dy: unsafe { scratch.rows.as_ptr().cast::<u32>().add(first) },
                    apart: apart * 16,
                    steps,
                    // SAFETY: the row and column lie in dw.
                    to: unsafe { dw.add((outputs.start + first) * e.inputs + column) },
                    row: e.inputs,
                    lanes: last_mask(used),
                    first: rows.start == 0,
                    stream: stream == 1 && used % 16 == 0,
                };
                let count = (outputs.len() - first).min(12);
                // SAFETY: kernels on words are chosen on machines that have them; panels and dw hold what is asked for, and where
                // stores stream, `column` is aligned in every row.
                unsafe {
                    match unit {
                        Unit::Dot => dot::outer(&outer, used.div_ceil(16), count),
                        Unit::F32 | Unit::Fma => fma::outer(&outer, used.div_ceil(16), count),
                    }
                }
            }
        }
    }
}
