//! The order, the limits and the times of the queue.

use super::limits::MINUTE;
use std::sync::atomic::Ordering;

use super::*;

const LIMITS: JobLimits = JobLimits { all: 8, per_host: 4, per_far_host: 6, per_repository: 2, scans: 1 };

fn job(host: &str, n: usize) -> Job {
    Job { git_dir: format!("/{host}/{n}").into(), mirror: "m".into(), host: host.into(), mode: Mode::Drain }
}

fn queue(jobs: &[(&str, usize)]) -> Queue {
    let mut queue = Queue::new(LIMITS);
    jobs.iter().flat_map(|(host, count)| (0..*count).map(move |n| job(host, n))).for_each(|job| queue.add(job));
    queue
}

const NEAR: Duration = Duration::from_millis(9);

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("small")
}

fn served(queue: &mut Queue, now: i64) -> Option<Job> {
    match queue.next(at(now)) {
        Next::Serve(job) => Some(job),
        _ => None,
    }
}

fn down(until: i64) -> Said {
    Said::Down(Down { error: "no route".into(), attempts: 1, next_attempt_at: at(until), cause: None })
}

#[test]
fn a_host_that_is_down_is_tried_once_and_delays_no_other() {
    let mut queue = queue(&[("dead", 500), ("alive", 50)]);
    let probes = [served(&mut queue, 0), served(&mut queue, 0)].map(|job| job.map(|job| job.host));
    assert_eq!(probes, [Some("alive".into()), Some("dead".into())]);
    assert!(matches!(queue.next(at(0)), Next::Wait(None)), "one each, until they have answered");
    queue.served(&job("alive", 0), Said::Up(NEAR));
    for n in 1..50 {
        assert_eq!(served(&mut queue, 0), Some(job("alive", n)));
        queue.served(&job("alive", n), Said::Up(NEAR));
    }
    queue.served(&job("dead", 0), down(10));
    let defer = std::iter::from_fn(|| match queue.next(at(1)) {
        Next::Defer(job, down) => Some((job, down)),
        _ => None,
    });
    assert_eq!(defer.count(), 499);
    assert!(matches!(queue.next(at(1)), Next::End));
    queue.add(job("dead", 7));
    assert!(matches!(queue.next(at(9)), Next::Defer(..)), "it is still down");
    queue.add(job("dead", 7));
    queue.add(job("dead", 8));
    assert_eq!(served(&mut queue, 10), Some(job("dead", 7)), "its turn has come");
    assert_eq!(served(&mut queue, 10), None, "only one job at a time until the host has answered");
}

#[test]
fn limits_hold_and_hosts_take_turns() {
    let hosts = |jobs: &[(&str, usize)], took: Duration| -> Vec<String> {
        let mut queue = queue(jobs);
        for (host, _) in jobs {
            served(&mut queue, 0);
            queue.served(&job(host, 0), Said::Up(took));
        }
        std::iter::from_fn(|| served(&mut queue, 0)).map(|job| job.host).collect()
    };
    assert_eq!(hosts(&[("a", 9), ("b", 3)], NEAR), ["a", "b", "a", "b", "a", "a"], "at most four at host a");
    assert_eq!(hosts(&[("a", 9), ("b", 9), ("c", 9)], NEAR).len(), LIMITS.all, "eight in all");
    assert_eq!(hosts(&[("far", 9)], FAR).len(), 6, "more at a far host");
    let mut one = Queue::new(LIMITS);
    for n in 0..4 {
        one.add(Job { git_dir: "/x".into(), mirror: format!("m{n}"), ..job("", 0) });
    }
    one.add(job("", 9));
    let found: Vec<PathBuf> = std::iter::from_fn(|| served(&mut one, 0)).map(|job| job.git_dir).collect();
    assert_eq!(found, [PathBuf::from("/x"), "/x".into(), "//9".into()], "at most two of one repository");
}

/// A daemon's queue with room at its hosts and for each repository, and one host that has answered.
fn open_queue() -> Queue {
    let mut queue = Queue::new(JobLimits { per_host: 99, per_repository: 99, ..LIMITS });
    queue.open();
    queue.add(job("h", 0));
    served(&mut queue, 0);
    queue.served(&job("h", 0), Said::Up(NEAR));
    queue
}

fn of_one_repository(n: usize) -> Job {
    Job { git_dir: "/x".into(), mirror: format!("m{n}"), ..job("h", 0) }
}

/// A daemon's queue for which `[hosts]` sets this limit at the host `name`.
fn limited(name: &str, limit: HostLimit) -> Queue {
    let mut queue = queue(&[]);
    queue.open();
    queue.set_limits(LIMITS, BTreeMap::from([(name.to_owned(), limit)]));
    queue
}

#[test]
fn a_named_host_has_one_limit_for_all_its_ports() {
    let mut queue = limited("forge", HostLimit { jobs: Some(3), per_minute: None });
    let endpoints = ["forge", "Forge:22", "forge:8443", "user@forge"];
    for endpoint in endpoints {
        queue.add(job(endpoint, 0));
        let first = served(&mut queue, 0).expect("the first run of each");
        queue.served(&first, Said::Up(FAR));
    }
    endpoints.iter().for_each(|endpoint| (1..9).for_each(|n| queue.add(job(endpoint, n))));
    queue.add(job("forge.example", 0));
    let begun: Vec<Job> = std::iter::from_fn(|| served(&mut queue, 0)).collect();
    assert_eq!(begun.iter().filter(|job| job.host != "forge.example").count(), 3, "{begun:?}");
    assert_eq!(begun.len(), 4, "another host is not held up");
    assert_eq!(served(&mut queue, 99), None, "runs that only wait count too");
    // The limit may also be higher than max_jobs_per_host, and one port may have its own.
    let mut high = limited("forge:8443", HostLimit { jobs: Some(6), per_minute: None });
    for endpoint in ["forge:8443", "forge"] {
        high.add(job(endpoint, 0));
        let first = served(&mut high, 0).expect("the first run of each");
        high.served(&first, Said::Up(NEAR));
    }
    (1..9).for_each(|n| high.add(job("forge:8443", n)));
    assert_eq!(std::iter::from_fn(|| served(&mut high, 0)).count(), 6);
    high.set_limits(LIMITS, BTreeMap::new());
    assert_eq!(served(&mut high, 0), None, "without the limit, max_jobs_per_host counts again");
}

#[test]
fn a_named_host_takes_so_many_runs_a_minute_and_the_queue_wakes_for_the_next() {
    let mut queue = limited("[::1]", HostLimit { jobs: None, per_minute: Some(10) });
    let all: Vec<Job> = (0..100).map(|n| job(["::1:22", "[::1]"][n % 2], n)).collect();
    all.iter().for_each(|job| queue.add(job.clone()));
    let (mut now, mut begun) = (at(0), Vec::new());
    while begun.len() < all.len() {
        match queue.next(now) {
            Next::Serve(job) => {
                begun.push(now);
                queue.served(&job, Said::Up(NEAR));
            }
            Next::Wait(Some(time)) => now = time,
            other => panic!("{other:?} after {} runs", begun.len()),
        }
    }
    let in_a_minute = |from: &Timestamp| begun.iter().filter(|time| *from <= **time && **time < *from + MINUTE).count();
    assert_eq!(begun.iter().map(in_a_minute).max(), Some(10), "{begun:?}");
    assert_eq!(now, at(9 * 60), "and no slower than that");
    queue.add(job("::1:22", 0));
    assert!(matches!(queue.next(now), Next::Wait(Some(time)) if time == at(600)), "what comes later waits as well");
}

/// A daemon's queue with a named host that has answered, and many jobs for it.
fn of_fleet(limit: HostLimit) -> Queue {
    let mut queue = limited("forge", limit);
    queue.add(job("forge", 0));
    let first = served(&mut queue, 0).expect("the first");
    queue.served(&first, Said::Up(FAR));
    (1..30).for_each(|n| queue.add(job("forge", n)));
    queue
}

fn part(jobs: Option<usize>, per_minute: Option<usize>) -> BTreeMap<String, HostLimit> {
    BTreeMap::from([("forge".to_owned(), HostLimit { jobs, per_minute })])
}

#[test]
fn a_machine_uses_its_part_of_a_limit_and_an_even_share_after_the_part_has_expired() {
    let mut queue = of_fleet(HostLimit { jobs: Some(8), per_minute: None });
    let count = |queue: &mut Queue, now| std::iter::from_fn(|| served(queue, now)).count();
    queue.share(Parts { of: part(Some(0), None), until: at(10), machines: 4 });
    assert_eq!((count(&mut queue, 0), queue.is_short()), (0, true));
    queue.share(Parts { of: part(Some(3), None), until: at(10), machines: 4 });
    assert!(!queue.is_short(), "nobody has looked yet");
    assert_eq!((count(&mut queue, 0), queue.is_short()), (3, true));
    assert_eq!(queue.uses(at(0))["forge"], HostUse { running: 3, waiting: 26, begun: 4 });
    // `lower` makes a smaller part apply at once. A larger one applies only after `share`.
    let first = job("forge", 1);
    queue.served(&first, Said::Up(NEAR));
    assert_eq!(queue.lower(&part(Some(2), None), at(1))["forge"].running, 2);
    assert_eq!(count(&mut queue, 1), 0);
    queue.lower(&part(Some(8), None), at(1));
    assert_eq!(count(&mut queue, 1), 0);
    // The database does not answer any more. The part is then the limit divided by the number of machines, 8 / 4 = 2. With 20 machines it
    // would be 0, but it is at least 1.
    queue.share(Parts { of: part(Some(4), None), until: at(10), machines: 4 });
    assert_eq!((count(&mut queue, 9), count(&mut queue, 10)), (2, 0));
    for n in [2, 3, 4] {
        queue.served(&job("forge", n), Said::Up(NEAR));
    }
    assert_eq!(count(&mut queue, 11), 1, "two run in all");
    queue.share(Parts { of: BTreeMap::new(), until: at(0), machines: 20 });
    queue.served(&job("forge", 5), Said::Up(NEAR));
    queue.served(&job("forge", 6), Said::Up(NEAR));
    assert_eq!(count(&mut queue, 12), 1);
}

#[test]
fn contacts_in_a_minute_are_shared_too_and_a_host_that_asked_another_machine_to_wait_is_left_alone() {
    let mut queue = of_fleet(HostLimit { jobs: None, per_minute: Some(60) });
    let count = |queue: &mut Queue, now| {
        let mut begun = 0;
        while let Some(job) = served(queue, now) {
            queue.served(&job, Said::Up(NEAR));
            begun += 1;
        }
        begun
    };
    queue.share(Parts { of: part(None, Some(0)), until: at(100), machines: 2 });
    assert!(matches!(queue.next(at(1)), Next::Wait(Some(_))) && queue.is_short());
    queue.share(Parts { of: part(None, Some(5)), until: at(100), machines: 2 });
    assert_eq!((count(&mut queue, 1), count(&mut queue, 59)), (4, 0), "one began at 0");
    assert_eq!(count(&mut queue, 61), 5);
    let down = Down { error: "429".into(), attempts: 1, next_attempt_at: at(200), cause: None };
    queue.hold("forge", down.clone());
    queue.hold("forge", Down { next_attempt_at: at(150), ..down });
    assert!(matches!(queue.next(at(190)), Next::Defer(_, Down { next_attempt_at, .. }) if next_attempt_at == at(200)));
    assert!(matches!(queue.next(at(200)), Next::Serve(_)));
}

#[test]
fn parts_that_expire_wake_the_queue_and_a_new_configuration_holds_at_once() {
    let limit = |jobs, per_minute| BTreeMap::from([("forge".to_owned(), HostLimit { jobs, per_minute })]);
    let mut queue = of_fleet(HostLimit { jobs: Some(8), per_minute: None });
    let count = |queue: &mut Queue, now| std::iter::from_fn(|| served(queue, now)).count();
    queue.share(Parts { of: part(Some(0), None), until: at(10), machines: 4 });
    assert!(matches!(queue.next(at(1)), Next::Wait(Some(time)) if time == at(10)));
    assert_eq!(count(&mut queue, 10), 2, "the database does not answer: 8 / 4");
    // The database answers again with a smaller part. `lower` applies it before it is stored.
    assert_eq!(queue.lower(&part(Some(1), None), at(11))["forge"].running, 2);
    queue.served(&job("forge", 1), Said::Up(NEAR));
    assert_eq!(count(&mut queue, 11), 0);
    // The new file allows fewer jobs than the part, and sets `max_per_minute`, which had no value. Later it names another host.
    queue.share(Parts { of: part(Some(8), None), until: at(30), machines: 4 });
    queue.set_limits(LIMITS, limit(Some(3), Some(5)));
    assert_eq!(count(&mut queue, 12), 2);
    queue.set_limits(LIMITS, limit(Some(8), Some(5)));
    assert_eq!(count(&mut queue, 12), 0, "five began in this minute");
    queue.set_limits(LIMITS, BTreeMap::from([("new".to_owned(), HostLimit { jobs: Some(5), per_minute: None })]));
    queue.add(job("new", 0));
    assert_eq!(served(&mut queue, 12).filter(|job| job.host == "new"), None, "not before the fleet gives it a part");
    assert!(queue.hosts["new"].running == 0 && queue.hosts["new"].waiting.len() == 1);
}

#[test]
fn a_run_that_only_waits_gives_up_its_place_and_some_places_are_for_other_repositories() {
    let mut queue = open_queue();
    (0..60).for_each(|n| queue.add(of_one_repository(n)));
    let count = |queue: &mut Queue, now| std::iter::from_fn(|| served(queue, now)).count();
    assert_eq!(count(&mut queue, 0), 6, "two of eight places are for others");
    queue.add(job("h", 1));
    assert_eq!(served(&mut queue, 0), Some(job("h", 1)), "at once");
    assert!(matches!(queue.next(at(0)), Next::Wait(Some(time)) if time == at(5)), "then the first run is checked");
    assert_eq!(count(&mut queue, 5), 6, "in the places of those that wait");
    assert_eq!(count(&mut queue, 10), 6);
    assert_eq!(count(&mut queue, 15), 3, "but only sixteen go on without a place");
}

#[test]
fn a_run_that_works_keeps_its_place() {
    // Only the daemon checks its runs. In a batch, no run gives up its place.
    let mut batch = queue(&[("h", 20)]);
    served(&mut batch, 0);
    batch.served(&job("h", 0), Said::Up(NEAR));
    assert_eq!(std::iter::from_fn(|| served(&mut batch, 0)).count(), LIMITS.per_host);
    assert_eq!(served(&mut batch, 60), None);
    let mut queue = open_queue();
    (0..20).for_each(|n| queue.add(job("h", n)));
    let begun: Vec<Job> = std::iter::from_fn(|| served(&mut queue, 0)).collect();
    assert_eq!(begun.len(), LIMITS.all);
    let progress: Vec<Arc<Progress>> = begun.iter().map(|_| Arc::default()).collect();
    begun.iter().zip(&progress).for_each(|(job, progress)| queue.begun(&job.key(), Arc::clone(progress)));
    let send = |bytes| {
        for progress in &progress {
            progress.bytes.fetch_add(bytes, Ordering::Relaxed);
        }
    };
    send(50_000);
    assert_eq!(served(&mut queue, 5), None, "ten kilobytes a second");
    send(50_000);
    assert_eq!(served(&mut queue, 10), None, "still");
    progress.iter().for_each(|progress| progress.begin_packing());
    assert_eq!(served(&mut queue, 15), None, "each makes its pack");
    progress[0].bytes.fetch_add(49_999, Ordering::Relaxed);
    progress[0].end_packing();
    assert!(served(&mut queue, 20).is_some() && served(&mut queue, 20).is_none(), "too slow: one place is free");
    // For a mirror on this machine, receive-pack works on this machine too. So such a run never counts as one that only waits.
    let mut local = Queue::new(LIMITS);
    local.open();
    (0..20).for_each(|n| local.add(job("", n)));
    assert_eq!(std::iter::from_fn(|| served(&mut local, 0)).count(), LIMITS.all);
    assert_eq!(served(&mut local, 60), None);
}

#[test]
fn a_run_that_only_waits_keeps_no_place_at_its_host() {
    let mut queue = queue(&[("a", 9)]);
    queue.open();
    assert_eq!(served(&mut queue, 0), Some(job("a", 0)));
    assert_eq!(served(&mut queue, 4), None, "the host has not answered");
    assert_eq!(served(&mut queue, 5), Some(job("a", 1)), "the first one may never end");
    assert_eq!(served(&mut queue, 99), None, "but no more than two");
    queue.served(&job("a", 1), Said::Up(NEAR));
    let more = std::iter::from_fn(|| served(&mut queue, 99)).count();
    assert_eq!(more, LIMITS.per_host, "beside the one that waits");
}

#[test]
fn a_job_that_comes_while_its_mirror_is_served_is_served_afterwards() {
    let mut queue = queue(&[("a", 1)]);
    queue.add(job("a", 0));
    assert_eq!(served(&mut queue, 0), Some(job("a", 0)));
    assert_eq!(served(&mut queue, 0), None, "the mirror was in the queue only once");
    let sync = Job { mode: Mode::Reconcile, ..job("a", 0) };
    queue.add(sync.clone());
    queue.add(job("a", 0));
    queue.served(&job("a", 0), Said::Up(NEAR));
    assert_eq!(served(&mut queue, 0), Some(sync));
    queue.served(&job("a", 0), Said::Up(NEAR));
    assert!(matches!(queue.next(at(0)), Next::End));
}

#[test]
fn a_job_that_asks_for_more_is_not_lost_to_one_that_asks_for_less() {
    let by_strength = [
        Mode::Drain,
        Mode::Pull(Check::Now),
        Mode::Reconcile,
        Mode::Sync(MassDelete::Guarded),
        Mode::Sync(MassDelete::Allowed),
    ];
    for (first, second) in by_strength.iter().flat_map(|one| by_strength.iter().map(move |other| (*one, *other))) {
        let strength = |mode| by_strength.iter().position(|known| *known == mode);
        let stronger = if strength(first) > strength(second) { first } else { second };
        let with = |mode| Job { mode, ..job("a", 0) };
        let mut waiting = queue(&[("a", 1)]);
        waiting.add(with(first));
        waiting.add(with(second));
        assert_eq!(served(&mut waiting, 0), Some(with(stronger)), "{first:?}, {second:?}: both wait");
        let mut running = queue(&[("a", 1)]);
        running.add(job("a", 0));
        served(&mut running, 0).expect("the first run");
        running.add(with(first));
        running.add(with(second));
        running.served(&job("a", 0), Said::Up(NEAR));
        assert_eq!(served(&mut running, 0), Some(with(stronger)), "{first:?}, {second:?}: during a run");
    }
}

#[test]
fn scheduled_times_are_kept_until_the_queue_is_halted() {
    let mut queue = queue(&[]);
    queue.open();
    let key = || (PathBuf::from("/x"), "m".to_owned());
    queue.scan_at(key(), Some(at(5)));
    queue.scan_at(key(), Some(at(9)));
    assert!(matches!(queue.next(at(6)), Next::Wait(Some(time)) if time == at(9)));
    assert!(matches!(queue.next(at(9)), Next::Scan(path) if path.as_os_str() == "/x"));
    queue.scan_all(vec!["/y".into(), "/z".into()], at(9));
    assert!(matches!(queue.next(at(9)), Next::Wait(None)), "one scan at a time");
    queue.scanned(at(9));
    queue.scan_at(key(), Some(at(20)));
    queue.halt();
    queue.add(job("a", 1));
    assert!(matches!(queue.next(at(9)), Next::End));
}
