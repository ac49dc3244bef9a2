//! Upstreams whose connection is cut or stalls after any number of bytes. No ref moves before all its objects are here, and the next pull
//! finishes the work.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::Taking;
use crate::scene::servers::Kind;
use crate::scene::wire::{Then, Way, Wire};

/// Pulls a commit of about 20 kB over a wire that fails after each number of bytes.
fn survives(kind: Kind, way: Way, then: Then, points: &[i64]) {
    let s = Taking::behind(kind, &[]).with(&["main"]);
    let limits = "stall_timeout = \"1s\"\nretry_delay = \"1s\"\nmax_retry_delay = \"1s\"";
    s.sandbox.add_mirror_config(&s.here, limits);
    let wire = Wire::to(s.server.as_ref().unwrap().port(), way, then);
    wire.lead(&s.here, s.server.as_ref().unwrap().port());
    let work = s.work();
    for bytes in points {
        let noise: Vec<u8> = (0..5_000_u32)
            .flat_map(|number| (number.wrapping_mul(2_654_435_761).rotate_left(7) ^ *bytes as u32).to_le_bytes())
            .collect();
        std::fs::write(work.path.join("noise"), noise).unwrap();
        work.git(&["add", "noise"]);
        work.commit(&format!("{bytes}"));
        work.push(&["main", "main:topic"]);
        let before = s.sandbox.refs(&s.here);
        wire.budget.store(*bytes, Ordering::SeqCst);
        let (at, begin) = (format!("{kind:?}, {way:?}, {then:?} after {bytes} bytes"), Instant::now());
        let said = s.sandbox.mirror_push(&s.here, &["pull", "--json"]);
        assert!(begin.elapsed() < Duration::from_secs(10), "{at}: {:?}", begin.elapsed());
        let is_done = said.status == 0 && s.is_taken();
        assert!(is_done || s.sandbox.refs(&s.here) == before, "{at}: {said:?}");
        assert!(is_done || said.json()[0]["update_status"] == "scheduled", "{at}: {said:?}");
        wire.budget.store(-1, Ordering::SeqCst);
        s.pull_ok();
        assert!(s.is_taken(), "{at}");
        assert_eq!(s.leftovers(), Vec::<String>::new(), "{at}");
        s.sandbox.git(&s.here, &["fsck", "--strict", "--connectivity-only"]);
    }
}

#[test]
fn an_upstream_that_is_cut_after_any_number_of_bytes() {
    for kind in [Kind::Git, Kind::Http, Kind::Ssh] {
        survives(kind, Way::ToMirror, Then::Cut, &[0, 1, 100, 300]);
        survives(kind, Way::FromMirror, Then::Cut, &[0, 1, 4, 100, 300, 1000, 10_000]);
    }
}

#[test]
fn an_upstream_that_stalls_after_any_number_of_bytes() {
    for kind in [Kind::Git, Kind::Http, Kind::Ssh] {
        survives(kind, Way::ToMirror, Then::Stall, &[0, 100]);
        survives(kind, Way::FromMirror, Then::Stall, &[0, 300, 10_000]);
    }
}
