//! Progress bars. Nothing is drawn where standard error is not a terminal.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// How often the progress is drawn, per second.
const DRAWS_PER_S: u8 = 10;

/// A bar over `total` bytes.
pub(super) fn bytes_bar(total: u64) -> ProgressBar {
    bar(Some(total), "{bar:40} {percent:>3} %  {bytes} of {total_bytes}  {eta} left")
}

/// For bytes of which nobody knows how many there will be.
pub(super) fn bytes_counter() -> ProgressBar {
    bar(None, "{spinner} {bytes}  {bytes_per_sec}  {elapsed}")
}

fn bar(total: Option<u64>, template: &str) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::stderr_with_hz(DRAWS_PER_S));
    bar.set_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar
}
