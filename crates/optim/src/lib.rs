//! SGD, LARS, schedules and parameter groups, equal to the published codes.
//!
//! The learning rate is an argument of [`Optimizer::step`] and schedules are pure functions of the step, so nothing but
//! the momentum buffers has to be kept to resume. Which parameters decay, adapt or learn at another rate goes by their
//! role and group, never by their name or number of dimensions.
#![doc = include_str!("../README.md")]

mod adam;
mod config;
mod groups;
mod lars;
mod optimizer;
mod schedule;
mod sgd;
#[cfg(test)]
mod tests;
mod variant;

pub use adam::Adam;
pub use config::{Algorithm, Built, ConfigError, ConstantGroup, LrScaling, OptimConfig, ScheduleKind, build};
pub use diptych_kernels::optimizer::{fault, forget_fault};
pub use groups::{ConstantLr, Decay, GroupLr, Rules, Treatment, describe};
pub use lars::Lars;
pub use optimizer::{Optimizer, first_non_finite};
pub use schedule::{Constant, Milestones, PerEpoch, Schedule, WarmupCosine};
pub use sgd::Sgd;
pub use variant::Variant;
