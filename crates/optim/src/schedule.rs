//! Learning rates as pure functions of the step.

use std::f64::consts::PI;

/// The learning rate of each step.
pub trait Schedule: Send {
    /// The rate of step `step`, the first being 0.
    fn at(&self, step: u64) -> f64;
}

/// The same rate at every step after a linear warm-up.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Constant {
    /// The rate.
    pub base: f64,
    /// Steps of the warm-up; its step k has `base * k / warmup`.
    pub warmup: u64,
}

impl Schedule for Constant {
    fn at(&self, step: u64) -> f64 {
        warmup(self.base, self.warmup, step).unwrap_or(self.base)
    }
}

/// Another schedule, looked at once an epoch: each step has the rate of its epoch's first (the official codes of MoCo and SimSiam).
pub struct PerEpoch {
    /// The schedule by steps.
    pub schedule: Box<dyn Schedule>,
    /// Steps in an epoch.
    pub steps_per_epoch: u64,
}

impl Schedule for PerEpoch {
    fn at(&self, step: u64) -> f64 {
        self.schedule.at(step - step % self.steps_per_epoch.max(1))
    }
}

/// Linear warm-up, then half a cosine, stepwise, as in the official codes of SimCLR, BYOL and Barlow Twins.
///
/// ```text
/// lr(k) = base k / warmup                                                        k < warmup
/// lr(k) = base (q + final_ratio (1 - q)),  q = (1 + cos(pi (k - warmup) / (total - warmup))) / 2
/// ```
///
/// Step 0 of a warm-up has a rate of 0, the step `warmup` exactly `base`; the rate at `total`, which would be the step
/// after the last, is exactly `base * final_ratio`, and stays there.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct WarmupCosine {
    /// The peak.
    pub base: f64,
    /// Steps of the warm-up.
    pub warmup: u64,
    /// Steps in all.
    pub total: u64,
    /// What share of `base` is left at the end: 0.001 in Barlow Twins, 0 in SimCLR and BYOL.
    pub final_ratio: f64,
}

impl Schedule for WarmupCosine {
    fn at(&self, step: u64) -> f64 {
        if let Some(lr) = warmup(self.base, self.warmup, step) {
            return lr;
        }
        if step >= self.total {
            return self.base * self.final_ratio;
        }
        let done = (step - self.warmup) as f64 / (self.total - self.warmup) as f64;
        let q = 0.5 * (1.0 + (PI * done).cos());
        self.base * (q + self.final_ratio * (1.0 - q))
    }
}

/// Linear warm-up, then a factor at each milestone (MoCo's schedule at epochs 120 and 160).
#[derive(Clone, Debug, PartialEq)]
pub struct Milestones {
    /// The rate before the first milestone.
    pub base: f64,
    /// Steps of the warm-up.
    pub warmup: u64,
    /// The steps from which on the rate is multiplied once more.
    pub steps: Vec<u64>,
    /// The factor.
    pub gamma: f64,
}

impl Schedule for Milestones {
    fn at(&self, step: u64) -> f64 {
        let passed = self.steps.iter().filter(|&&milestone| milestone <= step).count();
        let decayed = self.base * self.gamma.powi(passed as i32);
        warmup(decayed, self.warmup, step).unwrap_or(decayed)
    }
}

/// The rate within the warm-up; `None` after it.
fn warmup(base: f64, steps: u64, step: u64) -> Option<f64> {
    (step < steps).then(|| base * step as f64 / steps as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Values of the official `adjust_learning_rate` (barlowtwins, main.py): base 1.6, 10 of 100 steps of warm-up.
    #[test]
    fn warmup_cosine_is_barlow_twins_schedule() {
        let schedule = WarmupCosine { base: 1.6, warmup: 10, total: 100, final_ratio: 0.001 };
        let official = |step: f64| {
            let q = 0.5 * (1.0 + (PI * (step - 10.0) / 90.0).cos());
            1.6 * q + 1.6 * 0.001 * (1.0 - q)
        };
        assert_eq!(schedule.at(0), 0.0);
        assert!((schedule.at(7) - 1.12).abs() < 1e-12);
        assert_eq!(schedule.at(10), 1.6);
        for step in [11, 40, 55, 99] {
            assert!((schedule.at(step) - official(step as f64)).abs() < 1e-12);
        }
        assert!((schedule.at(55) - 0.8008).abs() < 1e-12);
        assert_eq!(schedule.at(100), 1.6 * 0.001);
        assert_eq!(schedule.at(1_000), 1.6 * 0.001);
    }

    #[test]
    fn milestones_multiply_from_their_step_on() {
        let schedule = Milestones { base: 0.03, warmup: 0, steps: vec![120, 160], gamma: 0.1 };
        assert_eq!(schedule.at(119), 0.03);
        assert!((schedule.at(120) - 0.003).abs() < 1e-15 && (schedule.at(159) - 0.003).abs() < 1e-15);
        assert!((schedule.at(160) - 0.0003).abs() < 1e-15);
    }

    #[test]
    fn a_constant_rate_warms_up_and_stays() {
        let schedule = Constant { base: 2.0, warmup: 4 };
        assert_eq!([0, 1, 3, 4, 1_000_000].map(|k| schedule.at(k)), [0.0, 0.5, 1.5, 2.0, 2.0]);
    }

    proptest! {
        /// Up to the end of the warm-up it never falls, after it it never rises; it stays between the end and the peak.
        #[test]
        fn warmup_cosine_rises_then_falls(
            base in 1e-4f64..10.0, total in 1u64..500, warm in 0.0f64..1.0, final_ratio in 0.0f64..1.0,
        ) {
            let warmup = (warm * (total - 1) as f64) as u64;
            let schedule = WarmupCosine { base, warmup, total, final_ratio };
            prop_assert_eq!(schedule.at(warmup), base);
            prop_assert_eq!(schedule.at(total), base * final_ratio);
            for step in 0..total + 3 {
                let (now, next) = (schedule.at(step), schedule.at(step + 1));
                if step < warmup {
                    prop_assert!(now < next);
                } else {
                    prop_assert!(now >= next - 1e-15 * base);
                    prop_assert!(now >= base * final_ratio && now <= base);
                }
            }
        }

        /// The mean over a whole cosine is the mean of peak and end (by its symmetry).
        #[test]
        fn the_cosine_is_symmetric(total in 2u64..300, final_ratio in 0.0f64..1.0) {
            let schedule = WarmupCosine { base: 1.0, warmup: 0, total, final_ratio };
            for step in 0..=total {
                let both = schedule.at(step) + schedule.at(total - step);
                prop_assert!((both - 1.0 - final_ratio).abs() < 1e-12);
            }
        }

        /// Each step of the milestones is `gamma` to the number passed.
        #[test]
        fn milestones_only_fall(mut steps in proptest::collection::vec(1u64..100, 0..5), gamma in 0.01f64..1.0) {
            steps.sort_unstable();
            let schedule = Milestones { base: 1.0, warmup: 0, steps: steps.clone(), gamma };
            for step in 0..110 {
                prop_assert!(schedule.at(step + 1) <= schedule.at(step));
            }
            prop_assert!((schedule.at(100) - gamma.powi(steps.len() as i32)).abs() < 1e-15);
        }
    }
}
