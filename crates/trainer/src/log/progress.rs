//! Progress for the person watching: a bar on a terminal, plain lines elsewhere, nothing when quiet. All on stderr.

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
}

/// Shows how a run goes.
#[derive(Debug)]
pub struct Progress {}

impl Progress {
    /// Progress over `total` steps and `epochs` epochs, of which `start` steps are already done (a resumed run).
    ///
    /// A bar when stderr is a terminal, otherwise a line every few seconds; nothing when `quiet`.
    pub fn new(start: u64, total: u64, epochs: u64, quiet: bool) -> Self {
        let _ = (start, total, epochs, quiet);
        Progress {}
    }

    /// Shows the state after a step. Cheap: draws at most a few times a second.
    pub fn tick(&mut self, tick: &Tick) {
        let _ = tick;
    }

    /// Prints a line above the bar (or as it is without one); nothing when quiet.
    pub fn println(&self, text: &str) {
        let _ = text;
    }

    /// Ends the bar and leaves the screen clean.
    pub fn finish(&mut self) {}
}
