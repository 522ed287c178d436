//! Progress for the person watching: a bar on a terminal, plain lines elsewhere, nothing when quiet. All on stderr.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// What is known after a step.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tick {
    /// Steps done, counted from the start of the run (not of the resume).
    pub step: u64,
    /// The epoch under way, from 0.
    pub epoch: u64,
    /// The loss of this step.
    pub loss: f64,
    /// Source images per second.
    pub images_per_second: f64,
    /// Share of the time spent waiting for data, a fraction.
    pub data_wait_share: f64,
    /// The spread of the embeddings as a share of an even one: near 1 is healthy, near 0 a collapse.
    pub spread: Option<f64>,
}

/// Shows how a run goes.
#[derive(Debug)]
pub struct Progress {
    total: u64,
    epochs: u64,
    pace: Pace,
    out: Out,
}

#[derive(Debug)]
enum Out {
    Bar(ProgressBar),
    Lines { last: Option<Instant> },
    Quiet,
}

/// Time between two plain lines.
const BETWEEN_LINES: Duration = Duration::from_secs(10);

impl Progress {
    /// Progress over `total` steps and `epochs` epochs, of which `start` steps are already done (a resumed run).
    ///
    /// A bar when stderr is a terminal, otherwise a line after the first step, after the last, and every 10 seconds
    /// between; nothing when `quiet`.
    pub fn new(start: u64, total: u64, epochs: u64, quiet: bool) -> Self {
        let out = if quiet {
            Out::Quiet
        } else if std::io::stderr().is_terminal() {
            Out::Bar(bar(start, total, ProgressDrawTarget::stderr_with_hz(8)))
        } else {
            Out::Lines { last: None }
        };
        Progress { total, epochs, pace: Pace::new(start, Instant::now()), out }
    }

    /// Shows the state after a step. Cheap: draws at most a few times a second.
    pub fn tick(&mut self, tick: &Tick) {
        let now = Instant::now();
        let left = self.pace.left(tick.step, self.total, now);
        match &mut self.out {
            Out::Quiet => {}
            Out::Bar(bar) => {
                // The text first: setting the position may draw at once.
                bar.set_message(message(tick, self.epochs, left));
                bar.set_position(tick.step);
            }
            Out::Lines { last } => {
                let due = last.is_none_or(|last| now.duration_since(last) >= BETWEEN_LINES);
                if due || tick.step >= self.total {
                    *last = Some(now);
                    write_line(&format!("step {}/{}  {}", tick.step, self.total, message(tick, self.epochs, left)));
                }
            }
        }
    }

    /// Leaves the time since the last step, such as an evaluation's, out of the estimate of the time left.
    pub fn pause(&mut self) {
        self.pace.pause(Instant::now());
    }

    /// Prints a line above the bar, or as it is without one; nothing when quiet.
    pub fn println(&self, text: &str) {
        match &self.out {
            Out::Quiet => {}
            Out::Bar(bar) => bar.suspend(|| write_line(text)),
            Out::Lines { .. } => write_line(text),
        }
    }

    /// Ends the bar and leaves it as it stands, with the cursor on a new line.
    pub fn finish(&mut self) {
        if let Out::Bar(bar) = &self.out {
            bar.abandon();
        }
    }
}

/// One write, without the panic of `eprintln!` when nobody reads stderr any more (`2>&1 | head`).
fn write_line(text: &str) {
    use std::io::Write;
    let _ = std::io::stderr().write_all(format!("{text}\n").as_bytes());
}

fn bar(start: u64, total: u64, target: ProgressDrawTarget) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(total), target).with_position(start);
    let style = ProgressStyle::with_template("{bar:16.cyan/blue} {pos}/{len}  {wide_msg}");
    bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("━╸─"))
}

/// `epoch 3/20  loss 4.1234  1:05 left  512 images/s  spread 93 %  data wait 2 %`: what a narrow terminal cuts off comes last.
fn message(tick: &Tick, epochs: u64, left: Option<Duration>) -> String {
    let left = left.map_or(String::new(), |left| format!("  {} left", clock(left)));
    let spread = tick.spread.map_or(String::new(), |spread| format!("  spread {:.0} %", 100.0 * spread));
    format!(
        "epoch {}/{epochs}  loss {:.4}{left}  {:.0} images/s{spread}  data wait {:.0} %",
        (tick.epoch + 1).min(epochs.max(1)),
        tick.loss,
        tick.images_per_second,
        100.0 * tick.data_wait_share,
    )
}

/// `0:07`, `12:34`, `3:02:01`, `2d 03:04`: as short as the size allows.
fn clock(time: Duration) -> String {
    let seconds = time.as_secs();
    let (days, hours, minutes, rest) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    match (days, hours) {
        (0, 0) => format!("{minutes}:{rest:02}"),
        (0, _) => format!("{hours}:{minutes:02}:{rest:02}"),
        _ => format!("{days}d {hours:02}:{minutes:02}"),
    }
}

/// How long a step takes: an exponential mean, quick to follow a change and steady enough to read.
#[derive(Debug)]
struct Pace {
    step: u64,
    at: Instant,
    /// Mean seconds per step and the weight gathered so far, which undoes the bias of the first steps.
    mean: f64,
    weight: f64,
}

impl Pace {
    fn new(step: u64, at: Instant) -> Self {
        Pace { step, at, mean: 0.0, weight: 0.0 }
    }

    fn pause(&mut self, now: Instant) {
        self.at = now;
    }

    /// Takes note that `step` steps are done; the time that the rest of `total` will take.
    fn left(&mut self, step: u64, total: u64, now: Instant) -> Option<Duration> {
        let steps = step.saturating_sub(self.step);
        if steps > 0 {
            let seconds = now.duration_since(self.at).as_secs_f64() / steps as f64;
            let keep = 0.98f64.powf(steps as f64);
            self.mean = keep * self.mean + (1.0 - keep) * seconds;
            self.weight = keep * self.weight + (1.0 - keep);
            (self.step, self.at) = (step, now);
        }
        let seconds = self.mean / self.weight * total.saturating_sub(step) as f64;
        Duration::try_from_secs_f64(seconds).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use indicatif::InMemoryTerm;

    const TICK: Tick = Tick {
        step: 50,
        epoch: 2,
        loss: 4.123_44,
        images_per_second: 511.6,
        data_wait_share: 0.016,
        spread: Some(0.934),
    };

    #[test]
    fn the_line_says_all_there_is_to_know() {
        let line = message(&TICK, 20, Some(Duration::from_secs(65)));
        assert_eq!(line, "epoch 3/20  loss 4.1234  1:05 left  512 images/s  spread 93 %  data wait 2 %");
        // After the last step the epoch is not one too many.
        assert!(message(&Tick { epoch: 20, ..TICK }, 20, None).starts_with("epoch 20/20  loss"));
    }

    #[test]
    fn times_are_short() {
        let text = |seconds| clock(Duration::from_secs(seconds));
        assert_eq!([text(7), text(754), text(10_921), text(183_845)], ["0:07", "12:34", "3:02:01", "2d 03:04"]);
    }

    #[test]
    fn the_time_left_follows_the_pace_and_leaves_pauses_out() {
        let start = Instant::now();
        let at = |seconds: f64| start + Duration::from_secs_f64(seconds);
        let mut pace = Pace::new(100, start);
        assert_eq!(pace.left(100, 200, start), None);
        let seconds = |left: Option<Duration>| left.map_or(f64::NAN, |left| left.as_secs_f64());
        assert!((seconds(pace.left(101, 200, at(0.5))) - 49.5).abs() < 1e-6, "steps before the resume don't count");
        pace.pause(at(1000.0));
        assert!((seconds(pace.left(102, 200, at(1000.5))) - 49.0).abs() < 1e-6, "nor does a pause");
        for step in 103..=150 {
            pace.left(step, 1_000_000, at(1000.5 + (step - 102) as f64 * 2.0));
        }
        let slow = seconds(pace.left(151, 251, at(1098.5)));
        assert!((100.0..200.0).contains(&slow) && slow > 140.0, "slower steps are followed: {slow}");
        assert_eq!(pace.left(251, 251, at(1100.0)), Some(Duration::ZERO));
    }

    #[test]
    fn the_bar_shows_the_line_and_prints_above_itself() {
        let term = InMemoryTerm::new(10, 120);
        let target = ProgressDrawTarget::term_like(Box::new(term.clone()));
        let out = Out::Bar(bar(0, 100, target));
        let mut progress = Progress { total: 100, epochs: 20, pace: Pace::new(0, Instant::now()), out };
        progress.tick(&TICK);
        let Out::Bar(bar) = &progress.out else { unreachable!() };
        bar.force_draw();
        bar.println("checkpoint saved");
        progress.finish();
        let screen = term.contents();
        let lines: Vec<&str> = screen.lines().collect();
        assert_eq!(lines[0], "checkpoint saved", "{screen}");
        assert!(lines[1].starts_with("━"), "{screen}");
        assert!(lines[1].contains(" 50/100  epoch 3/20  loss 4.1234  "), "{screen}");
        assert!(lines[1].trim_end().ends_with(" left  512 images/s  spread 93 %  data wait 2 %"), "{screen}");
    }
}
