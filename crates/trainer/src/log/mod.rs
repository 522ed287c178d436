//! What a run writes down: metrics as JSON lines, TensorBoard event files, and progress for the person watching.
//!
//! All three are plain data in: no tensor, and the clock's time is an argument wherever it is stored.

pub mod metrics;
pub mod progress;
pub mod tensorboard;

pub use metrics::{MetricsLog, Row};
pub use progress::{Progress, Tick};
pub use tensorboard::EventWriter;
