//! kNN of test features among training features, beside lightly's on matrix products.

use anyhow::Result;
use candle_core::{DType, Device, Tensor};
use diptych_metrics::{Votes, accuracy, classify, nearest_in};
use serde_json::{Value, json};

use crate::bars::{Bar, Measure};
use crate::case::{Case, Memory, Precision, Runner, Scale, Tensors, Tolerance, Work};
use crate::input::random;

const CLASSES: usize = 100;
const TEMPERATURE: f64 = 0.1;

#[derive(Clone, Copy)]
struct Neighbors {
    train: usize,
    test: usize,
    width: usize,
    k: usize,
    precision: Precision,
    scale: Scale,
}

pub(super) fn cases(scale: Scale) -> Vec<Box<dyn Case>> {
    let (train, test, width, k) = match scale {
        Scale::Cpu => (50_000, 10_000, 512, 200),
        Scale::Gpu => return Vec::new(),
        Scale::Tiny => (300, 40, 8, 20),
    };
    let case = |precision| Box::new(Neighbors { train, test, width, k, precision, scale }) as Box<dyn Case>;
    [Precision::F32, Precision::Bf16].map(case).into()
}

impl Case for Neighbors {
    fn name(&self) -> String {
        format!("knn_{}x{}_{}_{}", self.train, self.width, self.test, self.precision.name())
    }

    fn groups(&self) -> Vec<String> {
        Vec::new()
    }

    fn precision(&self) -> Precision {
        self.precision
    }

    /// Similarities agree far better; of 10,000 predictions a few may differ, where votes are as good as equal.
    fn tolerance(&self) -> Tolerance {
        match self.precision {
            Precision::Bf16 => Tolerance { norm: 1e-2, largest: 2e-2 },
            _ => Tolerance { norm: 5e-4, largest: 1e-3 },
        }
    }

    fn memory(&self) -> Memory {
        Memory::Ours
    }

    fn spec(&self) -> Value {
        json!({ "kind": "knn", "k": self.k, "temperature": TEMPERATURE, "classes": CLASSES })
    }

    /// Test images that go through one product, in f32; where rounding is allowed also in bf16.
    fn variants(&self) -> Vec<&'static str> {
        match self.precision {
            Precision::Bf16 => vec!["f32_256", "f32_512", "bf16_256", "bf16_512"],
            _ => vec!["f32_256", "f32_512"],
        }
    }

    fn bars(&self) -> Vec<Bar> {
        let bar = || Bar::new("kNN: against the best of lightly's", Measure::Best, 1.5);
        (self.scale == Scale::Cpu && self.precision == Precision::F32).then(bar).into_iter().collect()
    }

    fn work(&self) -> Work {
        let (train, test, width) = (self.train as f64, self.test as f64, self.width as f64);
        Work { flops: 2.0 * train * test * width, bytes: 4.0 * (train + test) * width }
    }

    fn build(&self, _: &Device) -> Result<Box<dyn Runner>> {
        let draw =
            |name: &str, rows: usize, scale: f64| random(name, &[rows, self.width], scale, DType::F32, &Device::Cpu);
        let centers = draw("centers", CLASSES, 1.0)?;
        let labels = |rows: usize| (0..rows).map(|i| (i * 7919 % CLASSES) as u32).collect::<Vec<u32>>();
        // Each row is so near its class that not all of the test rows are told right.
        let features = |name: &str, rows: usize| -> Result<Tensor> {
            let own = centers.index_select(&Tensor::new(labels(rows), &Device::Cpu)?, 0)?;
            let x = (own + draw(name, rows, 6.0)?)?;
            Ok(x.broadcast_div(&x.sqr()?.sum_keepdim(1)?.sqrt()?)?)
        };
        let (train, test) = (features("train", self.train)?, features("test", self.test)?);
        let (train_labels, test_labels) = (labels(self.train), labels(self.test));
        Ok(Box::new(Running { case: *self, train, test, train_labels, test_labels }))
    }
}

struct Running {
    case: Neighbors,
    train: Tensor,
    test: Tensor,
    train_labels: Vec<u32>,
    test_labels: Vec<u32>,
}

/// Neighbors and predicted classes of the test rows.
type Found = (Vec<Vec<(u32, f32)>>, Vec<u32>);

impl Running {
    fn predict(&self) -> Result<Found> {
        let precision = match self.case.precision {
            Precision::Bf16 => diptych_metrics::Precision::Bf16,
            _ => diptych_metrics::Precision::F32,
        };
        let found = nearest_in(precision, &self.test, &self.train, self.case.k)?;
        let classes = classify(&found, &self.train_labels, self.case.k, Votes::Weighted { temperature: TEMPERATURE })?;
        Ok((found, classes))
    }
}

impl Runner for Running {
    fn inputs(&self) -> Result<Tensors> {
        let labels =
            |labels: &[u32]| -> Result<Tensor> { Ok(Tensor::new(labels, &Device::Cpu)?.to_dtype(DType::I64)?) };
        Ok([
            ("train".into(), self.train.clone()),
            ("test".into(), self.test.clone()),
            ("train_labels".into(), labels(&self.train_labels)?),
            ("test_labels".into(), labels(&self.test_labels)?),
        ]
        .into())
    }

    fn outputs(&mut self) -> Result<Tensors> {
        let (found, classes) = self.predict()?;
        let similarities: Vec<f32> = found.iter().flatten().map(|(_, similarity)| *similarity).collect();
        let similarities = Tensor::from_vec(similarities, (found.len(), self.case.k), &Device::Cpu)?;
        let right = accuracy(&classes, &self.test_labels)? as f32;
        Ok([("similarities".into(), similarities), ("accuracy".into(), Tensor::new(&[right], &Device::Cpu)?)].into())
    }

    fn run(&mut self) -> Result<()> {
        self.predict().map(drop)
    }
}
