//! Views of 224 and of 32 pixels: single operations with given parameters, and whole recipes.

mod gpu;
mod operations;
mod views;

pub(crate) use views::{LIBRARIES, recipe, told, tolerance};

use crate::case::{Case, Scale};
use crate::setting::Setting;

pub(super) fn cases(setting: &Setting) -> Vec<Box<dyn Case>> {
    let mut cases = views::cases(setting);
    if setting.scale == Scale::Cpu {
        cases.extend(operations::cases(setting));
    }
    cases
}
