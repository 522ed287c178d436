//! Whole methods against PyTorch 2.15 in float64, over two steps: `tests/fixtures/make_methods.py`.

mod clusters;
mod contrastive;
mod harness;
mod siamese;
