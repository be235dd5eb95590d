//! The error log: events to standard error.

use tracing_subscriber::filter::LevelFilter;

/// Starts logging; `level` is one of the words of `server { log = … }`. Once per process.
pub fn start(level: &str) {
    let level = match level {
        "error" => LevelFilter::ERROR,
        "warn" => LevelFilter::WARN,
        "debug" => LevelFilter::DEBUG,
        _ => LevelFilter::INFO,
    };
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(std::io::stderr)
        .with_target(false)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()));
    // A second start, as in tests, changes nothing.
    let _ = subscriber.try_init();
}
