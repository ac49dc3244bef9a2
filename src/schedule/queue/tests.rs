//! The order, the limits and the times of the queue.

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
    Said::Down(Down { error: "no route".into(), attempts: 1, next_attempt_at: at(until) })
}

#[test]
fn a_host_that_is_down_is_tried_once_and_delays_no_other() {
    let mut queue = queue(&[("dead", 500), ("alive", 50)]);
    let probes = [served(&mut queue, 0), served(&mut queue, 0)].map(|job| job.map(|job| job.host));
    assert_eq!(probes, [Some("alive".into()), Some("dead".into())]);
    assert!(matches!(queue.next(at(0)), Next::Wait(Some(_))), "one each, until they have answered");
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
    assert_eq!(served(&mut queue, 10), None, "and one goes alone");
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
    assert_eq!(hosts(&[("a", 9), ("b", 3)], NEAR), ["a", "b", "a", "b", "a", "a"], "four of a at most");
    assert_eq!(hosts(&[("a", 9), ("b", 9), ("c", 9)], NEAR).len(), LIMITS.all, "eight in all");
    assert_eq!(hosts(&[("far", 9)], FAR).len(), 6, "more where waiting is most of it");
    let mut one = Queue::new(LIMITS);
    for n in 0..4 {
        one.add(Job { git_dir: "/x".into(), mirror: format!("m{n}"), ..job("", 0) });
    }
    one.add(job("", 9));
    let found: Vec<PathBuf> = std::iter::from_fn(|| served(&mut one, 0)).map(|job| job.git_dir).collect();
    assert_eq!(found, [PathBuf::from("/x"), "/x".into(), "//9".into()], "two of a repository at most");
}

#[test]
fn a_slow_run_gives_up_its_place_and_some_places_are_for_other_repositories() {
    let mut one = Queue::new(JobLimits { per_host: 99, per_repository: 99, ..LIMITS });
    for n in 0..60 {
        one.add(Job { git_dir: "/x".into(), mirror: format!("m{n}"), ..job("", 0) });
    }
    let count = |queue: &mut Queue, now| std::iter::from_fn(|| served(queue, now)).count();
    assert_eq!(count(&mut one, 0), 6, "two of eight places are for others");
    one.add(job("", 1));
    assert_eq!(served(&mut one, 0), Some(job("", 1)), "at once");
    assert!(matches!(one.next(at(0)), Next::Wait(Some(time)) if time == at(5)), "then the first become slow");
    assert_eq!(count(&mut one, 5), 6, "in the places of the slow ones");
    assert_eq!(count(&mut one, 10), 6);
    assert_eq!(count(&mut one, 15), 3, "but only sixteen go on without a place");
}

#[test]
fn a_slow_run_keeps_no_place_at_its_host() {
    let mut queue = queue(&[("a", 9)]);
    assert_eq!(served(&mut queue, 0), Some(job("a", 0)));
    assert_eq!(served(&mut queue, 4), None, "the host has not answered");
    assert_eq!(served(&mut queue, 5), Some(job("a", 1)), "the first one may never end");
    queue.served(&job("a", 1), Said::Up(NEAR));
    let more = std::iter::from_fn(|| served(&mut queue, 5)).count();
    assert_eq!(more, LIMITS.per_host, "beside the slow one");
}

#[test]
fn what_comes_while_it_is_served_is_served_once_more() {
    let mut queue = queue(&[("a", 1)]);
    queue.add(job("a", 0));
    assert_eq!(served(&mut queue, 0), Some(job("a", 0)));
    assert_eq!(served(&mut queue, 0), None, "it waited once");
    let sync = Job { mode: Mode::Plan, ..job("a", 0) };
    queue.add(sync.clone());
    queue.add(job("a", 0));
    queue.served(&job("a", 0), Said::Up(NEAR));
    assert_eq!(served(&mut queue, 0), Some(sync));
    queue.served(&job("a", 0), Said::Up(NEAR));
    assert!(matches!(queue.next(at(0)), Next::End));
}

#[test]
fn times_are_kept_and_halting_forgets_them() {
    let mut queue = queue(&[]);
    queue.open();
    let key = || (PathBuf::from("/x"), "m".to_owned());
    queue.scan_at(key(), Some(at(5)));
    queue.scan_at(key(), Some(at(9)));
    assert!(matches!(queue.next(at(6)), Next::Wait(Some(time)) if time == at(9)));
    assert!(matches!(queue.next(at(9)), Next::Scan(path) if path.as_os_str() == "/x"));
    queue.scan_all(vec!["/y".into(), "/y".into()]);
    assert!(matches!(queue.next(at(9)), Next::Wait(None)), "one look at a time");
    queue.scanned();
    queue.scan_at(key(), Some(at(20)));
    queue.halt();
    queue.add(job("a", 1));
    assert!(matches!(queue.next(at(9)), Next::End));
}
