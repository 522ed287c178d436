//! What a view is made by, as plain data: the `[augment]` table of a recipe file.
//!
//! The keys are written once, below, and become three types: [`ViewRecipe`] (all that makes one view), [`Recipe`] (values
//! shared by all views, and the list of views) and [`ViewOverrides`] (what one view has different).

use serde::{Deserialize, Serialize};

use crate::channels::PerChannel;

/// How a crop is resampled; both are antialiased and equal Pillow's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Interpolation {
    /// Triangle filter (torchvision's default).
    Bilinear,
    /// Cubic convolution with a = -0.5 (SimCLR, BYOL, Barlow Twins).
    Bicubic,
}

macro_rules! keys {
    ($( $(#[$doc:meta])* $key:ident: $type:ty, )*) => {
        /// All that makes one view of an image.
        ///
        /// Missing keys take the values of [`Recipe::default`].
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub struct ViewRecipe {
            $( $(#[$doc])* pub $key: $type, )*
        }

        /// The `[augment]` table: values shared by all views, and one entry per view with what it has different.
        ///
        /// Missing keys take the values of [`Recipe::default`].
        ///
        /// ```toml
        /// [augment]
        /// size = 32
        /// brightness = 0.4
        /// views = [{ blur = 1.0 }, { blur = 0.1, solarize = 0.2 }]
        /// ```
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub struct Recipe {
            $( $(#[$doc])* pub $key: $type, )*
            /// One entry per view, in the order in which the method gets them.
            pub views: Vec<ViewOverrides>,
        }

        /// What one view has different from the shared values; the keys are those of [`ViewRecipe`].
        #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub struct ViewOverrides {
            $( $(#[$doc])* #[serde(skip_serializing_if = "Option::is_none")] pub $key: Option<$type>, )*
        }

        impl Recipe {
            /// The names of the shared keys, in the order of the table, without `views`.
            pub const KEYS: &'static [&'static str] = &[$( stringify!($key), )*];

            /// The shared values alone, as the recipe of one view.
            pub fn shared(&self) -> ViewRecipe {
                ViewRecipe { $( $key: self.$key, )* }
            }

            /// A recipe of these views with nothing different between `shared` and the recipe's values.
            pub fn of(shared: ViewRecipe, views: Vec<ViewOverrides>) -> Self {
                Self { $( $key: shared.$key, )* views }
            }
        }

        impl ViewOverrides {
            /// `shared` with this view's own values in place of the shared ones.
            pub fn over(&self, shared: &ViewRecipe) -> ViewRecipe {
                ViewRecipe { $( $key: self.$key.unwrap_or(shared.$key), )* }
            }

            /// Whether this view has its own value of `key`.
            pub fn sets(&self, key: &str) -> bool {
                match key {
                    $( stringify!($key) => self.$key.is_some(), )*
                    _ => false,
                }
            }
        }
    };
}

keys! {
    /// Side of the square view, in pixels.
    size: usize,
    /// Least and greatest area of the crop, as shares of the image's area.
    crop_scale: [f64; 2],
    /// Least and greatest width over height of the crop; drawn evenly in the logarithm.
    crop_ratio: [f64; 2],
    /// How the crop is resized to `size`: `"bilinear"` or `"bicubic"`.
    interpolation: Interpolation,
    /// Probability of a horizontal flip.
    flip: f64,
    /// Probability of the color jitter, that is of the next four together, in an order drawn per view.
    jitter: f64,
    /// Brightness factor from [max(0, 1 - x), 1 + x].
    brightness: f64,
    /// Contrast factor from [max(0, 1 - x), 1 + x].
    contrast: f64,
    /// Saturation factor from [max(0, 1 - x), 1 + x].
    saturation: f64,
    /// Hue shift from [-x, x], in turns; at most 0.5.
    hue: f64,
    /// Probability of dropping the color.
    grayscale: f64,
    /// Probability of the Gaussian blur.
    blur: f64,
    /// Least and greatest standard deviation of the blur, in pixels of the view (Pillow's `GaussianBlur(radius)`).
    blur_sigma: [f64; 2],
    /// Probability of solarizing.
    solarize: f64,
    /// Solarizing inverts the values from this one up.
    solarize_threshold: u8,
    /// Subtracted from the channels, one number each, after integers were scaled to [0, 1]; `[]` has it measured on the training images.
    mean: PerChannel,
    /// What the channels are divided by after that, one number each; `[]` as in `mean`.
    std: PerChannel,
}

impl Recipe {
    /// The full recipe of each view, in order.
    pub fn views(&self) -> Vec<ViewRecipe> {
        let shared = self.shared();
        self.views.iter().map(|view| view.over(&shared)).collect()
    }
}

/// [`Recipe::simclr`] at 224 pixels.
impl Default for Recipe {
    fn default() -> Self {
        Self::simclr(224)
    }
}

/// The shared values of [`Recipe::default`].
impl Default for ViewRecipe {
    fn default() -> Self {
        Recipe::default().shared()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_read_and_missing_keys_are_simclrs() {
        let text = r#"
            size = 32
            interpolation = "bilinear"
            blur = 0
            views = [{ blur = 1.0 }, { hue = 0.1, solarize = 0.2 }]
        "#;
        let recipe: Recipe = toml::from_str(text).unwrap();
        recipe.check().unwrap();
        let expected = ViewRecipe { interpolation: Interpolation::Bilinear, blur: 0.0, ..Recipe::simclr(32).shared() };
        let views = recipe.views();
        assert_eq!(views[0], ViewRecipe { blur: 1.0, ..expected.clone() });
        assert_eq!(views[1], ViewRecipe { hue: 0.1, solarize: 0.2, ..expected });
    }

    #[test]
    fn a_recipe_survives_its_text() {
        for recipe in [Recipe::simclr(224), Recipe::byol(32), Recipe::mocov2(96)] {
            let text = toml::to_string(&recipe).unwrap();
            assert_eq!(toml::from_str::<Recipe>(&text).unwrap(), recipe, "{text}");
        }
        let view = Recipe::byol(32).views().remove(1);
        assert_eq!(toml::from_str::<ViewRecipe>(&toml::to_string(&view).unwrap()).unwrap(), view);
    }

    /// Every key of the table is there in the text, so that a merged recipe hides no default.
    #[test]
    fn the_text_holds_every_key() {
        let text = toml::to_string(&Recipe::default()).unwrap();
        assert_eq!(Recipe::KEYS.len(), 17);
        for key in Recipe::KEYS {
            assert!(text.contains(&format!("{key} = ")), "{key} is missing in {text}");
        }
    }

    #[test]
    fn an_unknown_key_is_refused_by_name_with_the_known_ones() {
        for text in ["color_jitter = 0.5", "views = [{ color_jitter = 0.5 }]"] {
            let error = toml::from_str::<Recipe>(text).unwrap_err().to_string();
            assert!(error.contains("unknown field `color_jitter`, expected one of `size`, `crop_scale`"), "{error}");
        }
        let error = toml::from_str::<Recipe>("interpolation = \"lanczos\"").unwrap_err().to_string();
        assert!(error.contains("unknown variant `lanczos`, expected `bilinear` or `bicubic`"), "{error}");
    }
}
