//! A plot of recent attempts: how long each took, and how it ended. Pure.

use jiff::Timestamp;
use maud::{Markup, html};

use crate::status::{Attempt, UpdateStatus};

/// The most attempts in one plot.
pub(super) const MAX_BARS: usize = 40;
const HEIGHT: f64 = 48.0;
const STEP: usize = 10;

/// The plot, oldest attempt first, with a summary in words.
pub(super) fn plot(attempts: &[Attempt]) -> Markup {
    let shown = &attempts[attempts.len().saturating_sub(MAX_BARS)..];
    let longest = shown.iter().map(seconds).fold(0.1, f64::max);
    let failed = shown.iter().filter(|attempt| attempt.update_status != UpdateStatus::Finished).count();
    let attempts = if shown.len() == 1 { "1 attempt".to_owned() } else { format!("{} attempts", shown.len()) };
    let words = format!("{attempts}, {failed} of them without success; the longest took {longest:.1} s");
    html! {
        figure.plot {
            svg role="img" aria-label=(words) viewBox={ "0 0 " (MAX_BARS * STEP) " " (HEIGHT) } preserveAspectRatio="none" {
                @for (at, attempt) in shown.iter().enumerate() {
                    @let height = (seconds(attempt) / longest * (HEIGHT - 4.0)).max(2.0);
                    rect.{ (attempt.update_status.as_str()) } x=(at * STEP) y=(format!("{:.1}", HEIGHT - height))
                        width=(STEP - 2) height=(format!("{height:.1}")) {
                        title { (attempt.started_at) ", " (attempt.update_status.as_str()) ", " (format!("{:.1} s", seconds(attempt))) }
                    }
                }
            }
            figcaption { (words) }
        }
    }
}

fn seconds(attempt: &Attempt) -> f64 {
    let time = |text: &str| text.parse::<Timestamp>().ok();
    match (time(&attempt.started_at), time(&attempt.finished_at)) {
        (Some(started), Some(ended)) => ended.duration_since(started).as_secs_f64().max(0.0),
        _ => 0.0,
    }
}
