//! The published augmentations, as data.

use crate::recipe::{Interpolation, Recipe, ViewOverrides, ViewRecipe};

/// Channel means of ImageNet, which all the official codes use.
pub const IMAGENET_MEAN: [f32; 3] = [0.485, 0.456, 0.406];
/// Channel standard deviations of ImageNet.
pub const IMAGENET_STD: [f32; 3] = [0.229, 0.224, 0.225];

impl Recipe {
    /// SimCLR (Chen et al., ICML 2020, arXiv:2002.05709, appendix A): two alike views with color jitter of strength 1.
    pub fn simclr(size: usize) -> Self {
        let shared = ViewRecipe {
            size,
            crop_scale: [0.08, 1.0],
            crop_ratio: [3.0 / 4.0, 4.0 / 3.0],
            interpolation: Interpolation::Bicubic,
            flip: 0.5,
            jitter: 0.8,
            brightness: 0.8,
            contrast: 0.8,
            saturation: 0.8,
            hue: 0.2,
            grayscale: 0.2,
            blur: 0.5,
            blur_sigma: [0.1, 2.0],
            solarize: 0.0,
            solarize_threshold: 128,
            mean: IMAGENET_MEAN.into(),
            std: IMAGENET_STD.into(),
        };
        Self::of(shared, vec![ViewOverrides::default(); 2])
    }

    /// SimCLR on small pictures (arXiv:2002.05709, appendix B.9): jitter of strength 0.5 and no blur.
    pub fn simclr_cifar(size: usize) -> Self {
        Self { brightness: 0.4, contrast: 0.4, saturation: 0.4, hue: 0.1, blur: 0.0, ..Self::simclr(size) }
    }

    /// MoCo v2 (Chen et al. 2020, arXiv:2003.04297) and SimSiam (Chen and He, CVPR 2021, arXiv:2011.10566).
    pub fn mocov2(size: usize) -> Self {
        Self {
            crop_scale: [0.2, 1.0],
            interpolation: Interpolation::Bilinear,
            brightness: 0.4,
            contrast: 0.4,
            saturation: 0.4,
            hue: 0.1,
            ..Self::simclr(size)
        }
    }

    /// BYOL (Grill et al., NeurIPS 2020, arXiv:2006.07733, table 6): one view always blurred, the other solarized at times.
    pub fn byol(size: usize) -> Self {
        let first = ViewOverrides { blur: Some(1.0), solarize: Some(0.0), ..ViewOverrides::default() };
        let second = ViewOverrides { blur: Some(0.1), solarize: Some(0.2), ..ViewOverrides::default() };
        Self {
            brightness: 0.4,
            contrast: 0.4,
            saturation: 0.2,
            hue: 0.1,
            views: vec![first, second],
            ..Self::simclr(size)
        }
    }

    /// Barlow Twins (Zbontar et al., ICML 2021, arXiv:2103.03230): BYOL's views.
    pub fn barlow_twins(size: usize) -> Self {
        Self::byol(size)
    }
}
