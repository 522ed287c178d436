//! Logistic regression for a whole sweep of penalties, beside scikit-learn's.

use anyhow::Result;
use candle_core::{DType, Device, Tensor};
use diptych_eval::{Features, Logistic};
use serde_json::{Value, json};

use crate::case::{Case, Memory, Runner, Scale, Tensors, Tolerance, Work};
use crate::input::random;

/// A sweep over features of `classes` classes.
#[derive(Clone, Copy)]
struct Sweep {
    rows: usize,
    width: usize,
    classes: usize,
    penalties: usize,
}

pub(super) fn cases(scale: Scale) -> Vec<Box<dyn Case>> {
    match scale {
        Scale::Cpu => vec![Box::new(Sweep { rows: 10_000, width: 512, classes: 10, penalties: 45 })],
        Scale::Gpu => Vec::new(),
        Scale::Tiny => vec![Box::new(Sweep { rows: 300, width: 8, classes: 3, penalties: 4 })],
    }
}

impl Sweep {
    /// As many penalties, evenly spaced in the logarithm from 1e-6 to 1e5.
    fn settings(self) -> Logistic {
        let step = 11.0 / (self.penalties - 1) as f64;
        let penalties = (0..self.penalties).map(|i| 10f64.powf(-6.0 + step * i as f64)).collect();
        // At scikit-learn's default of 1e-4 two searches that stop may differ by 1e-3 of the objective; at this both are at the minimum.
        Logistic { penalties, tolerance: 1e-6, ..Logistic::default() }
    }
}

impl Case for Sweep {
    fn name(&self) -> String {
        format!("logistic_{}x{}_{}", self.rows, self.width, self.penalties)
    }

    fn groups(&self) -> Vec<String> {
        Vec::new()
    }

    /// Objectives agree to 1e-4 each: the smallest of the sweep are a third of the largest.
    fn tolerance(&self) -> Tolerance {
        Tolerance { norm: 1e-4, largest: 3e-5 }
    }

    fn memory(&self) -> Memory {
        Memory::Ours
    }

    fn spec(&self) -> Value {
        let Logistic { penalties, tolerance, iterations, .. } = self.settings();
        json!({ "kind": "logistic", "penalties": penalties, "tolerance": tolerance, "iterations": iterations })
    }

    /// Each penalty from zero, as ours, or from the solution for the next stronger one.
    fn variants(&self) -> Vec<&'static str> {
        vec!["cold", "warm"]
    }

    /// How many steps a search takes is not known beforehand, so there is no floor.
    fn work(&self) -> Work {
        Work::default()
    }

    fn build(&self, _: &Device) -> Result<Box<dyn Runner>> {
        let Self { rows, width, classes, .. } = *self;
        let draw = |name: &str, shape: &[usize]| random(name, shape, 1.0, DType::F32, &Device::Cpu);
        // The features of a class lie around its center, those of large index in a narrower band, as a network's do. A fifth of the rows has the label of
        // chance, so that no penalty makes the training rows separable.
        let labels: Vec<u32> = (0..rows).map(|i| (i % classes) as u32).collect();
        let centers = draw("centers", &[classes, width])?.affine(0.12, 0.0)?;
        let spectrum: Vec<f32> = (0..width).map(|j| (1.0 + j as f32).powf(-0.25)).collect();
        let noise = draw("noise", &[rows, width])?;
        let around = centers.index_select(&Tensor::new(labels.as_slice(), &Device::Cpu)?, 0)?;
        let x = (noise + around)?.broadcast_mul(&Tensor::from_vec(spectrum, width, &Device::Cpu)?)?;
        let labels = labels.iter().enumerate();
        let labels = labels.map(|(i, l)| if i % 5 == 0 { (i * 7919 / 5 % classes) as u32 } else { *l }).collect();
        let features = Features { x, labels: Some(labels), indices: (0..rows as u32).collect(), skipped: 0 };
        Ok(Box::new(Running { case: *self, features }))
    }
}

struct Running {
    case: Sweep,
    features: Features,
}

impl Runner for Running {
    fn inputs(&self) -> Result<Tensors> {
        let labels = self.features.labels.clone().unwrap_or_default();
        let labels = Tensor::new(labels, &Device::Cpu)?.to_dtype(DType::I64)?;
        Ok([("x".into(), self.features.x.clone()), ("labels".into(), labels)].into())
    }

    fn outputs(&mut self) -> Result<Tensors> {
        let path = self.case.settings().path(&self.features, self.case.classes)?;
        let objectives: Vec<f64> = path.iter().map(|point| point.objective).collect();
        Ok([("objectives".into(), Tensor::new(objectives, &Device::Cpu)?)].into())
    }

    fn run(&mut self) -> Result<()> {
        self.outputs().map(drop)
    }
}
