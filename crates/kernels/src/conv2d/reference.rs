//! Convolution in plain f64: seven loops, as the definition reads.

use crate::check::Array;

/// `y` `[n, oh, ow, o]` for `x` `[n, h, w, c]` and `w` `[o, kh, kw, c]`.
pub(crate) fn conv2d(x: &Array, w: &Array, stride: usize, padding: usize) -> Array {
    let [n, h, width, c] = x.shape[..] else { unreachable!("x is [N, H, W, C]") };
    let [o, kh, kw, _] = w.shape[..] else { unreachable!("w is [O, kh, kw, I]") };
    let (oh, ow) = ((h + 2 * padding - kh) / stride + 1, (width + 2 * padding - kw) / stride + 1);
    let mut y = Array::new(&[n, oh, ow, o], vec![0.0; n * oh * ow * o]);
    for (at, y) in y.data.iter_mut().enumerate() {
        let (channel, at) = (at % o, at / o);
        let (col, at) = (at % ow, at / ow);
        let (row, image) = (at % oh, at / oh);
        for i in 0..kh {
            for j in 0..kw {
                let (r, q) = (row * stride + i, col * stride + j);
                if (padding..h + padding).contains(&r) && (padding..width + padding).contains(&q) {
                    let x = &x.data[((image * h + r - padding) * width + q - padding) * c..][..c];
                    let w = &w.data[((channel * kh + i) * kw + j) * c..][..c];
                    *y += x.iter().zip(w).map(|(x, w)| x * w).sum::<f64>();
                }
            }
        }
    }
    y
}
