//! Threads for work that may block: on the disk, a lock, a name server or a remote.
//!
//! There are three kinds of work: checking tokens, reading, and changing. Guaranteed: each kind has its own threads, so no kind waits for
//! another. One token gets at most its share of the threads for reading and for changing. A thread keeps its place until its work is done,
//! even if the request was answered meanwhile. So one token cannot take all threads for reading or changing. Absent: a share for checking,
//! which happens before the token is known, and time limits ([`super::router`] has them).

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Threads in which tokens are checked.
const JUDGES: usize = 4;
/// Threads in which things are read, and how many of them one token may have.
const READERS: (usize, usize) = (16, 8);
/// Threads in which things are changed, and how many of them one token may have: a change may wait for a name server.
const WRITERS: (usize, usize) = (16, 2);
/// The threads of all kinds.
pub(super) const THREADS: usize = JUDGES + READERS.0 + WRITERS.0;
/// The maximum number of requests of one token that have a thread or wait for one. Reading and
/// changing are counted apart.
const MAX_IN_LINE: usize = 64;

/// The token has too many requests that are not answered yet.
#[derive(Debug)]
pub(super) struct TooMany;

/// The threads of the daemon's requests.
pub(super) struct Lanes {
    judges: Arc<Semaphore>,
    readers: Lane,
    writers: Lane,
}

impl Default for Lanes {
    fn default() -> Self {
        Self { judges: Arc::new(Semaphore::new(JUDGES)), readers: Lane::new(READERS), writers: Lane::new(WRITERS) }
    }
}

impl Lanes {
    /// Checks a token.
    pub(super) async fn judge<T: Send + 'static>(&self, act: impl FnOnce() -> T + Send + 'static) -> T {
        let place = place(&self.judges).await;
        in_thread(place, act).await
    }

    /// Reads something for the owner of a token.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        token: &str,
        act: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, TooMany> {
        self.readers.run(token, act).await
    }

    /// Changes something for the owner of a token.
    pub(super) async fn write<T: Send + 'static>(
        &self,
        token: &str,
        act: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, TooMany> {
        self.writers.run(token, act).await
    }
}

/// The threads for one kind of work.
struct Lane {
    places: Arc<Semaphore>,
    share: usize,
    tokens: Mutex<HashMap<String, Share>>,
}

/// What one token has of a lane.
struct Share {
    line: Arc<Semaphore>,
    places: Arc<Semaphore>,
}

impl Lane {
    fn new((places, share): (usize, usize)) -> Self {
        Self { places: Arc::new(Semaphore::new(places)), share, tokens: Mutex::default() }
    }

    /// Puts a request of a token in line. Returns its place there, and the token's share of the threads.
    fn enter(&self, token: &str) -> Result<(OwnedSemaphorePermit, Arc<Semaphore>), TooMany> {
        let mut tokens = self.tokens.lock();
        // Only tokens with open requests are remembered. This request is in line before the lock is released, so its token stays.
        tokens.retain(|_, share| share.line.available_permits() < MAX_IN_LINE);
        let new =
            || Share { line: Arc::new(Semaphore::new(MAX_IN_LINE)), places: Arc::new(Semaphore::new(self.share)) };
        let share = tokens.entry(token.to_owned()).or_insert_with(new);
        let in_line = Arc::clone(&share.line).try_acquire_owned().map_err(|_| TooMany)?;
        Ok((in_line, Arc::clone(&share.places)))
    }

    async fn run<T: Send + 'static>(
        &self,
        token: &str,
        act: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, TooMany> {
        let (in_line, share) = self.enter(token)?;
        let own = place(&share).await;
        let place = place(&self.places).await;
        Ok(in_thread((in_line, own, place), act).await)
    }
}

async fn place(places: &Arc<Semaphore>) -> OwnedSemaphorePermit {
    Arc::clone(places).acquire_owned().await.expect("nobody closes it")
}

/// Runs blocking work in a thread. `places` are held until the work is done.
async fn in_thread<T: Send + 'static>(places: impl Send + 'static, act: impl FnOnce() -> T + Send + 'static) -> T {
    let work = move || {
        let _held = places;
        act()
    };
    tokio::task::spawn_blocking(work).await.expect("a panic ends the request alone")
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_token_whose_work_waits_takes_no_thread_from_others() {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .max_blocking_threads(THREADS)
            .enable_time()
            .build()
            .expect("a runtime");
        let lanes = Arc::new(Lanes::default());
        let (end, ended) = channel::<()>();
        let ended = Arc::new(Mutex::new(ended));
        for _ in 0..MAX_IN_LINE {
            let (lanes, ended) = (Arc::clone(&lanes), Arc::clone(&ended));
            runtime.spawn(async move { lanes.write("greedy", move || ended.lock().recv()).await.is_ok() });
        }
        let soon = |done: &dyn Fn() -> bool| {
            (0..500).any(|_| {
                std::thread::park_timeout(Duration::from_millis(10));
                done()
            })
        };
        let in_line = || {
            let tokens = lanes.writers.tokens.lock();
            tokens.get("greedy").map_or(0, |share| MAX_IN_LINE - share.line.available_permits())
        };
        assert!(soon(&|| in_line() == MAX_IN_LINE), "all requests of the token are in line");
        runtime.block_on(async {
            assert!(lanes.write("greedy", || ()).await.is_err(), "one more is refused");
            for token in ["other", "third"] {
                assert_eq!(lanes.write(token, || 1).await.ok(), Some(1));
                assert_eq!(lanes.read(token, || 2).await.ok(), Some(2));
            }
            assert_eq!(lanes.read("greedy", || 3).await.ok(), Some(3));
            assert_eq!(lanes.judge(|| 4).await, 4);
        });
        drop(end);
        assert!(soon(&|| in_line() == 0), "all are answered");
    }
}
