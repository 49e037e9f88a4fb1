//! Waiting for what can be seen, with a deadline: no test sleeps and hopes.

use std::time::{Duration, Instant};

/// Longer than anything that does happen takes on a busy machine.
pub const LIMIT: Duration = Duration::from_secs(30);
/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// A value that was the same for so long has stopped changing.
const STILL: Duration = Duration::from_millis(400);

/// Looks until there is something to see.
///
/// # Panics
/// There was nothing within [`LIMIT`].
pub async fn eventually<T>(what: &str, look: impl AsyncFn() -> Option<T>) -> T {
    let deadline = Instant::now() + LIMIT;
    loop {
        if let Some(seen) = look().await {
            return seen;
        }
        assert!(Instant::now() < deadline, "not within {LIMIT:?}: {what}");
        // tidy: sleeps because it looks again, with a deadline, for what comes by itself.
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Looks until a value, once it satisfies `begun`, no longer changes; returns it.
///
/// # Panics
/// It still changed after [`LIMIT`].
pub async fn unchanging<T: PartialEq + Copy>(
    what: &str,
    look: impl Fn() -> T,
    begun: impl Fn(T) -> bool,
) -> T {
    let deadline = Instant::now() + LIMIT;
    let mut last = look();
    let mut since = Instant::now();
    loop {
        let now = look();
        if now != last || !begun(now) {
            (last, since) = (now, Instant::now());
        } else if since.elapsed() >= STILL {
            return now;
        }
        assert!(Instant::now() < deadline, "still changing: {what}");
        // tidy: sleeps because it looks again, with a deadline, for what comes by itself.
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// What a future gives, within [`LIMIT`].
///
/// # Panics
/// It took longer.
pub async fn in_time<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(LIMIT, future).await {
        Ok(value) => value,
        Err(_) => panic!("not within {LIMIT:?}: {what}"),
    }
}
