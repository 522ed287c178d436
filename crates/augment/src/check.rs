//! Whether a recipe can be followed, with the key named that cannot.

use std::fmt;

use crate::raster::{Depth, PixelFormat};
use crate::recipe::{Recipe, ViewRecipe};

/// A key of the `[augment]` table with a value that no view can be made by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecipeError {
    /// Where: `augment.hue`, or `augment.views[1].hue` where the view has its own value.
    pub key: String,
    /// What is wrong, and what is expected.
    pub problem: String,
}

impl fmt::Display for RecipeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.key, self.problem)
    }
}

impl std::error::Error for RecipeError {}

/// The largest side of a view; a larger one is a slip of the finger.
const MAX_SIZE: usize = 8192;

impl Recipe {
    /// Whether every view can be made.
    ///
    /// # Errors
    /// The first key, in the order of the table, with a value outside its range; or no view at all.
    pub fn check(&self) -> Result<(), RecipeError> {
        self.check_by(problem)
    }

    /// Whether every view can be made of pictures of this format.
    ///
    /// # Errors
    /// As [`check`](Self::check); and if `mean` has another number of channels, or an operation is about red, green and blue and the pictures are
    /// not 8-bit RGB.
    pub fn check_for(&self, format: PixelFormat) -> Result<(), RecipeError> {
        self.check()?;
        self.check_by(|view| problem_for(view, format))
    }

    fn check_by(&self, problem: impl Fn(&ViewRecipe) -> Result<(), (&'static str, String)>) -> Result<(), RecipeError> {
        if self.views.is_empty() {
            let problem = "is empty: give one entry per view, as in views = [{}, {}]".to_owned();
            return Err(RecipeError { key: "augment.views".to_owned(), problem });
        }
        for (i, (overrides, view)) in self.views.iter().zip(self.views()).enumerate() {
            if let Err((name, problem)) = problem(&view) {
                let at = if overrides.sets(name) { format!("views[{i}].") } else { String::new() };
                return Err(RecipeError { key: format!("augment.{at}{name}"), problem });
            }
        }
        Ok(())
    }
}

impl ViewRecipe {
    /// Whether this view can be made.
    ///
    /// # Errors
    /// The first key with a value outside its range.
    pub fn check(&self) -> Result<(), RecipeError> {
        problem(self).map_err(of_view)
    }

    /// Whether this view can be made of pictures of this format.
    ///
    /// # Errors
    /// As [`Recipe::check_for`].
    pub fn check_for(&self, format: PixelFormat) -> Result<(), RecipeError> {
        problem(self).and_then(|()| problem_for(self, format)).map_err(of_view)
    }
}

fn of_view((name, problem): (&'static str, String)) -> RecipeError {
    RecipeError { key: format!("augment.{name}"), problem }
}

/// The first key that cannot be followed, and why.
fn problem(view: &ViewRecipe) -> Result<(), (&'static str, String)> {
    if !(1..=MAX_SIZE).contains(&view.size) {
        return Err(("size", format!("is {}, expected 1 to {MAX_SIZE} pixels", view.size)));
    }
    range("crop_scale", view.crop_scale, 1.0)?;
    range("crop_ratio", view.crop_ratio, f64::MAX)?;
    probability("flip", view.flip)?;
    probability("jitter", view.jitter)?;
    strength("brightness", view.brightness, f64::MAX)?;
    strength("contrast", view.contrast, f64::MAX)?;
    strength("saturation", view.saturation, f64::MAX)?;
    strength("hue", view.hue, 0.5)?;
    probability("grayscale", view.grayscale)?;
    probability("blur", view.blur)?;
    range("blur_sigma", view.blur_sigma, MAX_SIZE as f64)?;
    probability("solarize", view.solarize)?;
    if let Some(m) = view.mean.iter().find(|m| !m.is_finite()) {
        return Err(("mean", format!("holds {m}, expected finite numbers")));
    }
    if let Some(s) = view.std.iter().find(|s| !(s.is_finite() && **s > 0.0)) {
        return Err(("std", format!("holds {s}, expected numbers above 0")));
    }
    if view.mean.len() != view.std.len() {
        let (mean, std) = (view.mean.len(), view.std.len());
        return Err((
            "std",
            format!("has {std} numbers and augment.mean {mean}: both need one per channel, or none to be measured"),
        ));
    }
    Ok(())
}

/// The first key that cannot be followed for pictures of this format, and why.
fn problem_for(view: &ViewRecipe, format: PixelFormat) -> Result<(), (&'static str, String)> {
    if view.mean.len() != format.channels {
        let problem = format!(
            "has {} numbers, the images have {format}: give one per channel (the command stats measures them), or [] to have them measured",
            view.mean.len()
        );
        return Err(("mean", problem));
    }
    if format == PixelFormat::RGB {
        return Ok(());
    }
    let jittered = |strength: f64| view.jitter > 0.0 && strength > 0.0;
    for (key, on) in
        [("saturation", jittered(view.saturation)), ("hue", jittered(view.hue)), ("grayscale", view.grayscale > 0.0)]
    {
        if on {
            return Err((
                key,
                format!(
                    "is for 8-bit RGB, the images have {format}: set it to 0 (brightness and contrast work per channel)"
                ),
            ));
        }
    }
    if format.depth == Depth::F32 && view.solarize > 0.0 {
        return Err(("solarize", "inverts numbers of a known full scale, the images are f32: set it to 0".to_owned()));
    }
    Ok(())
}

/// 0 < low <= high <= most.
fn range(key: &'static str, [low, high]: [f64; 2], most: f64) -> Result<(), (&'static str, String)> {
    // NaN fails the comparisons.
    if low > 0.0 && low <= high && high <= most {
        return Ok(());
    }
    let above = if most < f64::MAX { format!(", both at most {most}") } else { String::new() };
    Err((key, format!("is [{low:?}, {high:?}], expected [low, high] with 0 < low <= high{above}")))
}

fn probability(key: &'static str, p: f64) -> Result<(), (&'static str, String)> {
    if (0.0..=1.0).contains(&p) {
        return Ok(());
    }
    Err((key, format!("is {p:?}, expected a probability in [0, 1]")))
}

fn strength(key: &'static str, x: f64, most: f64) -> Result<(), (&'static str, String)> {
    if (0.0..=most).contains(&x) {
        return Ok(());
    }
    let expected = if most < f64::MAX { format!("a number in [0, {most}]") } else { "0 or more".to_owned() };
    Err((key, format!("is {x:?}, expected {expected}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channels::PerChannel;
    use crate::recipe::ViewOverrides;

    fn message(change: impl FnOnce(&mut Recipe)) -> String {
        let mut recipe = Recipe::byol(32);
        change(&mut recipe);
        recipe.check().expect_err("the recipe cannot be followed").to_string()
    }

    #[test]
    fn the_presets_are_sound() {
        let presets = [Recipe::simclr(32), Recipe::simclr_cifar(32), Recipe::mocov2(96), Recipe::byol(224)];
        for recipe in presets.into_iter().chain([Recipe::barlow_twins(1), Recipe::default()]) {
            assert_eq!(recipe.check(), Ok(()));
            assert_eq!(recipe.shared().check(), Ok(()));
        }
    }

    #[test]
    fn the_key_and_the_expectation_are_named() {
        type Edit = fn(&mut Recipe);
        let cases: [(Edit, &str); 15] = [
            (|r| r.size = 0, "augment.size is 0, expected 1 to 8192 pixels"),
            (
                |r| r.crop_scale = [0.0, 1.0],
                "augment.crop_scale is [0.0, 1.0], expected [low, high] with 0 < low <= high, both at most 1",
            ),
            (
                |r| r.crop_scale = [0.5, 1.5],
                "augment.crop_scale is [0.5, 1.5], expected [low, high] with 0 < low <= high, both at most 1",
            ),
            (
                |r| r.crop_ratio = [2.0, 1.0],
                "augment.crop_ratio is [2.0, 1.0], expected [low, high] with 0 < low <= high",
            ),
            (|r| r.flip = -0.1, "augment.flip is -0.1, expected a probability in [0, 1]"),
            (|r| r.jitter = f64::NAN, "augment.jitter is NaN, expected a probability in [0, 1]"),
            (|r| r.brightness = -1.0, "augment.brightness is -1.0, expected 0 or more"),
            (|r| r.hue = 0.6, "augment.hue is 0.6, expected a number in [0, 0.5]"),
            (|r| r.grayscale = 2.0, "augment.grayscale is 2.0, expected a probability in [0, 1]"),
            (
                |r| r.blur_sigma = [0.0, 2.0],
                "augment.blur_sigma is [0.0, 2.0], expected [low, high] with 0 < low <= high, both at most 8192",
            ),
            (|r| r.mean = [0.1, f32::NAN, 0.3].into(), "augment.mean holds NaN, expected finite numbers"),
            (|r| r.std = [0.2, 0.0, 0.2].into(), "augment.std holds 0, expected numbers above 0"),
            (
                |r| r.mean = PerChannel::MEASURED,
                "augment.std has 3 numbers and augment.mean 0: both need one per channel, or none to be measured",
            ),
            (|r| r.views.clear(), "augment.views is empty: give one entry per view, as in views = [{}, {}]"),
            (|r| r.views[1].solarize = Some(7.0), "augment.views[1].solarize is 7.0, expected a probability in [0, 1]"),
        ];
        for (change, expected) in cases {
            assert_eq!(message(change), expected);
        }
    }

    #[test]
    fn what_is_about_color_is_refused_for_other_pictures() {
        let five = PixelFormat { channels: 5, depth: Depth::F32 };
        let numbers = PerChannel::new(&[0.5; 5]).unwrap();
        let mut recipe = Recipe::byol(32);
        let message = |recipe: &Recipe| recipe.check_for(five).unwrap_err().to_string();
        assert_eq!(recipe.check_for(PixelFormat::RGB), Ok(()));
        assert_eq!(
            message(&recipe),
            "augment.mean has 3 numbers, the images have 5 channels of f32: give one per channel (the command stats measures them), \
             or [] to have them measured"
        );
        (recipe.mean, recipe.std) = (numbers, numbers);
        let of_color = "is for 8-bit RGB, the images have 5 channels of f32: set it to 0 (brightness and contrast work per channel)";
        assert_eq!(message(&recipe), format!("augment.saturation {of_color}"));
        recipe.saturation = 0.0;
        assert_eq!(message(&recipe), format!("augment.hue {of_color}"));
        recipe.hue = 0.0;
        assert_eq!(message(&recipe), format!("augment.grayscale {of_color}"));
        recipe.grayscale = 0.0;
        assert!(message(&recipe).starts_with("augment.views[1].solarize inverts numbers of a known full scale"));
        recipe.views[1].solarize = None;
        assert_eq!(recipe.check_for(five), Ok(()));
        assert_eq!(recipe.check_for(PixelFormat { depth: Depth::U16, ..five }), Ok(()));
        assert!(recipe.check_for(PixelFormat { channels: 4, ..five }).is_err());
    }

    #[test]
    fn a_shared_value_that_every_view_overrides_is_not_judged() {
        let mut recipe = Recipe::simclr(32);
        recipe.hue = 3.0;
        recipe.views = vec![ViewOverrides { hue: Some(0.1), ..ViewOverrides::default() }; 2];
        assert_eq!(recipe.check(), Ok(()));
    }
}
