//! Logging: one event per line on stderr, at the level that was asked for. A panic is logged with its source location.

use std::fmt;
use std::io::{self, Write};

use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::{FormatFields, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent};
use tracing_subscriber::registry::LookupSpan;

use super::args::Global;
use super::screen::Screen;
use crate::config::Environment;
use crate::terminal::escaped;

/// Starts logging at the level of `-v`, `-q` or `MIRROR_PUSH_LOG`.
pub(super) fn start(global: &Global, environment: &Environment, is_daemon: bool) {
    let asked = environment.log.as_deref().and_then(|level| level.parse::<LevelFilter>().ok());
    let level = match (global.quiet, global.verbose) {
        (true, _) => LevelFilter::ERROR,
        // A daemon says what it does, and who asked for what.
        (_, 0) => asked.unwrap_or(if is_daemon { LevelFilter::INFO } else { LevelFilter::WARN }),
        (_, 1) => LevelFilter::INFO,
        (_, 2) => LevelFilter::DEBUG,
        _ => LevelFilter::TRACE,
    };
    let format = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_ansi(false)
        .log_internal_errors(false)
        .without_time()
        .with_target(false);
    // A second start in one process keeps the first.
    let _ = match is_daemon {
        true => format.with_writer(|| Lines).try_init(),
        false => format.with_writer(|| Screen(io::stderr())).event_format(AsCommand).try_init(),
    };
    std::panic::set_hook(Box::new(|panic| {
        let payload = panic.payload();
        let text = payload.downcast_ref::<String>().map(String::as_str).or(payload.downcast_ref::<&str>().copied());
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let text = crate::credentials::Redactor::default().clean(text.unwrap_or("no message"));
        tracing::error!("internal error, please report it: panicked at {place}: {text}");
    }));
}

/// Standard error of a daemon. Each write is one event, and stays one line, whatever names and paths are in it.
struct Lines;

impl Write for Lines {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(event);
        let line = escaped(text.strip_suffix('\n').unwrap_or(&text));
        io::stderr().write_all(format!("{line}\n").as_bytes()).map(|()| event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

/// An event as a command of git says it: `warning: `, `error: `, or the text alone.
struct AsCommand;

impl<S, N> FormatEvent<S, N> for AsCommand
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut out: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        match *event.metadata().level() {
            Level::ERROR => out.write_str("error: ")?,
            Level::WARN => out.write_str("warning: ")?,
            _ => {}
        }
        context.format_fields(out.by_ref(), event)?;
        writeln!(out)
    }
}
