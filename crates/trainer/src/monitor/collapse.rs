//! Tells when embeddings have collapsed, from the numbers of the logged steps.
//!
//! A sign must hold for several looks and steps, and a network that was never healthy gets a grace period: fresh ones
//! often give all images nearly one embedding, and contrastive losses start near their trivial value. A sign that is
//! getting better is no alarm either, so slow starters are left alone.

use super::measure::{MOST_ROWS, Measures};

/// What one logged step tells.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Look {
    pub(crate) step: u64,
    pub(crate) loss: Option<f64>,
    /// The loss of a network that tells no image from another.
    pub(crate) trivial: Option<f64>,
    pub(crate) measures: Measures,
    /// N and D.
    pub(crate) shape: [usize; 2],
}

/// How a run has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// All images get one embedding: the spread is below a tenth of a sphere's.
    Point,
    /// The embeddings of different images are nearly alike, and stay so.
    Alike,
    /// The embeddings vary, but in a direction or two.
    FewDirections,
    /// The loss does not leave its trivial value.
    Trivial,
}

/// What there is to tell after a look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum News {
    /// A collapse, and the step at which its signs began.
    Collapsed { kind: Kind, since: u64 },
    /// The collapse that began at `since` is over.
    Recovered { since: u64 },
}

/// Embeddings spread less than this share of a full sphere's std (mean cosine above 0.99) are one point.
const POINT: f64 = 0.1;
/// Below this share (mean cosine above 0.91) they are alike.
const ALIKE: f64 = 0.3;
/// Fewer directions than this are few, whatever the spread.
const FEW: f64 = 3.0;
/// So is a smaller share of those that an even spread would use, where the spread is below the second number.
const FEW_AND_NARROW: (f64, f64) = (0.07, 0.7);
/// A spread above this has been healthy once; what a fresh network's narrower one becomes is left to the grace period.
const WIDE: f64 = 0.5;
/// A loss this share below its trivial value tells images apart, however near each other their embeddings are.
const APART: f64 = 0.1;
/// A loss is trivial within this share of its trivial value.
const TRIVIAL: f64 = 0.02;
/// Looks and steps for which a sign must hold.
const LOOKS: u32 = 3;
const STEPS: u64 = 20;

/// A sign that has held for some looks.
#[derive(Clone, Copy, Debug)]
struct Streak {
    began: u64,
    looks: u32,
    /// Mean over the looks of how far from collapse they were.
    mean: f64,
}

impl Streak {
    fn grow(streak: Option<Self>, step: u64, distance: f64) -> Self {
        let mut streak = streak.unwrap_or(Self { began: step, looks: 0, mean: 0.0 });
        streak.looks += 1;
        streak.mean += (distance - streak.mean) / f64::from(streak.looks);
        streak
    }

    fn held(&self, step: u64, looks: u32, steps: u64) -> bool {
        self.looks >= looks && step - self.began >= steps
    }
}

/// The state of the watch.
#[derive(Clone, Debug, Default)]
pub(crate) struct Collapse {
    total: u64,
    warmup: u64,
    /// Whether the embeddings have ever looked healthy.
    seen_healthy: bool,
    signs: [Option<Streak>; 4],
    /// How far the loss is below its trivial value, as a share of that, over some looks.
    below: Option<f64>,
    /// Looks without a sign, since a collapse was told.
    healthy: Option<Streak>,
    told: Option<(Kind, u64)>,
    even_rank: Option<f64>,
}

impl Collapse {
    pub(crate) fn new(total: u64, warmup: u64) -> Self {
        Self { total, warmup, ..Self::default() }
    }

    /// The step at which the collapse began that was told and is not over.
    pub(crate) fn since(&self) -> Option<u64> {
        self.told.map(|(_, since)| since)
    }

    /// Its kind.
    pub(crate) fn kind(&self) -> Option<Kind> {
        self.told.map(|(kind, _)| kind)
    }

    /// Takes in a look; news if there is any.
    pub(crate) fn look(&mut self, look: &Look) -> Option<News> {
        let signs = self.read(look);
        for (streak, (_, sign)) in self.signs.iter_mut().zip(signs) {
            *streak = sign.map(|distance| Streak::grow(*streak, look.step, distance));
        }
        let embeddings_healthy = signs[..3].iter().all(|(_, sign)| sign.is_none()) && look.measures.std.is_finite();
        self.seen_healthy |= embeddings_healthy && look.measures.std * (look.shape[1] as f64).sqrt() > WIDE;
        if let Some((_, since)) = self.told {
            let healthy = signs.iter().all(|(_, sign)| sign.is_none());
            self.healthy = healthy.then(|| Streak::grow(self.healthy, look.step, 0.0));
            let over = self.healthy.is_some_and(|streak| streak.held(look.step, LOOKS, STEPS));
            return over.then(|| {
                (self.told, self.healthy) = (None, None);
                News::Recovered { since }
            });
        }
        let told = signs.into_iter().enumerate().find_map(|(i, (kind, sign))| {
            let streak = self.signs[i]?;
            self.alarms(kind, &streak, sign?, look.step).then_some((kind, streak.began))
        });
        told.map(|(kind, began)| {
            // Embeddings that went through a milder sign first began to collapse there.
            let since = match kind {
                Kind::Trivial => began,
                _ => self.signs[..3].iter().flatten().map(|streak| streak.began).min().unwrap_or(began),
            };
            self.told = Some((kind, since));
            News::Collapsed { kind, since }
        })
    }

    /// The effective rank of an even spread, computed once.
    fn even_rank(&mut self, [n, d]: [usize; 2]) -> f64 {
        *self.even_rank.get_or_insert_with(|| diptych_metrics::even_rank(n.min(MOST_ROWS), d))
    }

    /// The signs of a look, gravest first, each with how far it is from total collapse.
    fn read(&mut self, look: &Look) -> [(Kind, Option<f64>); 4] {
        let [n, d] = look.shape;
        let spread = look.measures.std * (d.max(1) as f64).sqrt();
        let below = match (look.loss, look.trivial) {
            (Some(loss), Some(trivial)) if trivial > 0.0 => {
                let now = (trivial - loss) / trivial;
                let mean = self.below.map_or(now, |before| before + 0.3 * (now - before));
                self.below = Some(mean);
                Some(mean)
            }
            _ => None,
        };
        let apart = below.is_some_and(|below| below > APART);
        let narrow = !apart && spread < FEW_AND_NARROW.1;
        let narrow = if narrow { FEW_AND_NARROW.0 * self.even_rank(look.shape) } else { 0.0 };
        // Few rows or dimensions have few directions when all is well.
        let few = FEW.min(n.min(d) as f64 / 4.0).max(narrow);
        [
            (Kind::Point, Some(spread).filter(|spread| *spread < POINT)),
            (Kind::Alike, Some(spread).filter(|spread| *spread < ALIKE && !apart)),
            (Kind::FewDirections, Some(look.measures.rank).filter(|rank| *rank < few)),
            (Kind::Trivial, below.filter(|below| *below < TRIVIAL)),
        ]
    }

    /// Whether a sign has held for so long that it is told.
    fn alarms(&self, kind: Kind, streak: &Streak, distance: f64, step: u64) -> bool {
        let share = |share: f64, least: u64, most: u64| ((self.total as f64 * share) as u64).clamp(least, most);
        // A run of a few steps in all can't wait for long.
        let grace = share(0.05, 50, 1000).max(self.warmup).min(self.total / 2);
        let awake = self.seen_healthy || step >= grace;
        match kind {
            Kind::Point => awake && streak.held(step, LOOKS, STEPS) && distance <= 1.2 * streak.mean,
            Kind::Alike => awake && streak.held(step, 5, share(0.1, 50, 1000)) && distance <= 1.05 * streak.mean,
            Kind::FewDirections => awake && streak.held(step, LOOKS, STEPS) && distance <= 1.1 * streak.mean,
            // Whoever is on the way down is no longer stuck, and a warm-up holds everyone up.
            Kind::Trivial => {
                let patience = share(0.2, 50, 5000);
                step >= self.warmup.min(self.total / 2) + patience.min(self.total / 2)
                    && streak.held(step, 5, patience)
                    && distance <= streak.mean + 0.25 * TRIVIAL
            }
        }
    }
}
