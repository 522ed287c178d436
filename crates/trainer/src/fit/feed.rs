//! Batches where the run computes: on the CPU as the loader makes them, on a GPU from pictures that the GPU turns into views itself.

use anyhow::{Context, Result};
use candle_core::{DType, Device};
use diptych_augment::{Image, Interpolation, Jitter, JitterOp, PerChannel, ViewParams, ViewRecipe, ops};
use diptych_data::{DataError, Loader, Planned, PlannedBatch, Skipped};
use diptych_kernels::augment::{BoxFilter, Color, Form, Picture, View, views};
use diptych_kernels::device::Uploader;
use diptych_nn::{Batch, Views};

/// Where batches come from.
pub(super) enum Feed {
    /// The loader's threads make the views.
    Host { loader: Loader, device: Device, dtype: DType },
    /// The loader's threads decode and draw; pictures go to the GPU beside its work, and become views there.
    Device { loader: Loader<Planned>, uploader: Box<Uploader>, recipes: Vec<ViewRecipe>, dtype: DType },
}

impl Feed {
    /// The next batch, in the precision of the run; `None` at the end.
    pub(super) fn next(&mut self) -> Option<Result<Batch>> {
        Some(match self {
            Self::Host { loader, device, dtype } => match loader.next()? {
                Ok(batch) => {
                    let views = batch.views.to(device, *dtype);
                    views.map(|views| Batch { views, ..batch }).map_err(Into::into)
                }
                Err(error) => Err(unreadable(error)),
            },
            Self::Device { loader, uploader, recipes, dtype } => match loader.next()? {
                Ok(batch) => made(batch, uploader, recipes, *dtype),
                Err(error) => Err(unreadable(error)),
            },
        })
    }

    /// Seconds spent waiting for the loader so far.
    pub(super) fn wait_seconds(&self) -> f64 {
        match self {
            Self::Host { loader, .. } => loader.wait_seconds(),
            Self::Device { loader, .. } => loader.wait_seconds(),
        }
    }

    /// See [`Loader::take_skipped`].
    pub(super) fn take_skipped(&mut self) -> Vec<Skipped> {
        match self {
            Self::Host { loader, .. } => loader.take_skipped(),
            Self::Device { loader, .. } => loader.take_skipped(),
        }
    }
}

fn unreadable(error: DataError) -> anyhow::Error {
    anyhow::Error::new(error).context("the data can't be read")
}

/// The views of a batch, made on the device.
fn made(batch: PlannedBatch, uploader: &mut Uploader, recipes: &[ViewRecipe], dtype: DType) -> Result<Batch> {
    let mut end = 0;
    let mut pictures = Vec::with_capacity(batch.images.len());
    let images =
        batch.images.iter().map(|picture| picture.as_rgb().context("only views of 8-bit RGB are made on a GPU"));
    let images: Vec<&Image> = images.collect::<Result<_>>()?;
    for image in &images {
        pictures.push(Picture { start: end, width: image.width, height: image.height });
        end += image.pixels.len();
    }
    let bytes: Vec<&[u8]> = images.iter().map(|image| image.pixels.as_slice()).collect();
    let made = uploader.through(&bytes, |bytes| {
        let view = |(recipe, params): (&ViewRecipe, &Vec<ViewParams>)| {
            let three = |numbers: &PerChannel| numbers.rgb().unwrap_or_default();
            let form = Form { size: recipe.size, mean: three(&recipe.mean), std: three(&recipe.std), dtype };
            let params: Vec<View> = params.iter().enumerate().map(|(picture, params)| plain(picture, params)).collect();
            views(bytes, &pictures, &params, &form)
        };
        recipes.iter().zip(&batch.views).map(view).collect::<candle_core::Result<Vec<_>>>()
    })?;
    Ok(Batch { views: Views(made), labels: batch.rows.labels, index: batch.rows.index })
}

/// The parameters of a view in the words of the operation that makes it.
fn plain(picture: usize, params: &ViewParams) -> View {
    let &ViewParams { crop, interpolation, flip, jitter, grayscale, blur, solarize, .. } = params;
    let color = |Jitter { order, brightness, contrast, saturation, hue }: Jitter| {
        order.map(|op| {
            Some(match op {
                JitterOp::Brightness => Color::Brightness(brightness),
                JitterOp::Contrast => Color::Contrast(contrast),
                JitterOp::Saturation => Color::Saturation(saturation),
                JitterOp::Hue => Color::Hue(hue),
            })
        })
    };
    View {
        picture,
        corner: [crop.x, crop.y],
        extent: [crop.width, crop.height],
        bicubic: interpolation == Interpolation::Bicubic,
        flip,
        jitter: jitter.map_or([None; 4], color),
        grayscale,
        blur: blur.filter(|sigma| *sigma > 0.0).map(|sigma| {
            let ops::BoxFilter { radius, near, far } = ops::BoxFilter::of_sigma(sigma);
            BoxFilter { radius, near, far }
        }),
        solarize,
    }
}
