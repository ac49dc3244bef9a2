//! Networks that fail: a proxy whose connections are cut or stall after any number of bytes.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

/// What happens when the budget of bytes is used up.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Then {
    Cut,
    Stall,
}

/// The direction whose bytes count against the budget.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Way {
    ToMirror,
    FromMirror,
}

/// A TCP proxy to a server. Each of its connections fails after `budget` bytes; with a negative budget it never fails.
pub(crate) struct Wire {
    port: u16,
    pub(crate) budget: Arc<AtomicI64>,
}

impl Wire {
    pub(crate) fn to(server: u16, way: Way, then: Then) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (port, budget) = (listener.local_addr().unwrap().port(), Arc::new(AtomicI64::new(-1)));
        let left = Arc::clone(&budget);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let server = TcpStream::connect(("127.0.0.1", server)).unwrap();
                let left = Arc::new(AtomicI64::new(left.load(Ordering::SeqCst)));
                let endless = Arc::new(AtomicI64::new(-1));
                let (there, back) = match way {
                    Way::ToMirror => (left, endless),
                    Way::FromMirror => (endless, left),
                };
                let (from, to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                std::thread::spawn(move || carry(from, to, &there, then));
                std::thread::spawn(move || carry(server, client, &back, then));
            }
        });
        Self { port, budget }
    }

    /// Changes the configuration of the mirror `m` of `source` so that its connections to the server at `port` go through the wire.
    pub(crate) fn lead(&self, source: &Path, port: u16) {
        let config = source.join("mirror-push/config.toml");
        let text = std::fs::read_to_string(&config).unwrap();
        std::fs::write(&config, text.replace(&format!(":{port}/"), &format!(":{}/", self.port))).unwrap();
        let known_hosts = source.join("mirror-push/remotes/m/known_hosts");
        if let Ok(text) = std::fs::read_to_string(&known_hosts) {
            std::fs::write(known_hosts, text.replace(&port.to_string(), &self.port.to_string())).unwrap();
        }
    }
}

fn carry(mut from: TcpStream, mut to: TcpStream, budget: &AtomicI64, then: Then) {
    let mut chunk = [0; 4096];
    while let Ok(count @ 1..) = from.read(&mut chunk) {
        let before = budget.load(Ordering::SeqCst);
        let allowed = if before < 0 { count } else { count.min(usize::try_from(before).unwrap()) };
        if to.write_all(&chunk[..allowed]).is_err() {
            break;
        }
        if before >= 0 {
            budget.store(before - i64::try_from(allowed).unwrap(), Ordering::SeqCst);
        }
        if allowed < count {
            // A stalled wire still reads what is sent, and forwards nothing.
            while then == Then::Stall && from.read(&mut chunk).is_ok_and(|count| count > 0) {}
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}
