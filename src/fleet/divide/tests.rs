//! The division of limits: single cases, and simulated fleets of a hundred and of five nodes.

use super::*;

fn claims(wanted: &[usize]) -> Vec<Claim> {
    wanted.iter().map(|wanted| Claim { wanted: *wanted, ..Claim::default() }).collect()
}

#[test]
fn parts_are_even_as_far_as_they_are_wanted_and_add_up_to_the_limit() {
    for (limit, wanted, now, expected) in [
        (8, &[20, 20][..], 0, &[4, 4][..]),
        (8, &[20, 1], 0, &[7, 1]),
        (8, &[20, 0], 0, &[8, 0]),
        (8, &[0, 0], 0, &[4, 4]),
        (8, &[1, 1, 1], 0, &[3, 3, 2]),
        (9, &[2, 9, 9], 0, &[2, 4, 3]),
        (3, &[5, 5], 0, &[2, 1]),
        (1, &[5, 5, 5], 0, &[1, 0, 0]),
        (1, &[0, 0], 30, &[0, 1]),
        (0, &[5], 0, &[0]),
        (5, &[], 0, &[]),
    ] {
        let found = parts(limit, &claims(wanted), now);
        assert_eq!(found, expected, "{limit} {wanted:?} {now}");
        assert!(wanted.is_empty() || found.iter().sum::<usize>() == limit);
    }
}

#[test]
fn a_single_place_goes_to_the_node_that_has_waited_longest() {
    let node = |granted, since| Claim { granted, used: granted, wanted: 5, since };
    let has = node(1, 100);
    assert_eq!(parts(1, &[has, node(0, 50), node(0, 40)], 109), [1, 0, 0], "its turn is not over");
    assert_eq!(parts(1, &[has, node(0, 50), node(0, 40)], 110), [0, 0, 1]);
    assert_eq!(grant(1, &[has, node(0, 50), node(0, 40)], 2, 110), (0, 40), "the first node has not given it back");
    assert_eq!(grant(1, &[node(0, 100), node(0, 50), node(0, 40)], 2, 115), (1, 115));
    assert_eq!(parts(1, &[node(0, 100), node(0, 50), node(1, 115)], 124), [0, 0, 1]);
    assert_eq!(parts(2, &[node(1, 100), node(0, 50), node(1, 115)], 124), [0, 1, 1]);
    assert_eq!(
        parts(2, &[node(1, 100), node(0, 110), node(1, 105)], 124),
        [0, 1, 1],
        "who has had it longest gives it back"
    );
}

#[test]
fn nothing_is_granted_that_another_node_still_holds() {
    let holds = |granted, used| Claim { granted, used, wanted: used, since: 0 };
    let wants = Claim { wanted: 9, ..Claim::default() };
    assert_eq!(grant(8, &[holds(8, 2), wants], 1, 0).0, 0, "granted and not used");
    assert_eq!(grant(8, &[holds(4, 7), wants], 1, 0).0, 1, "used above the grant");
    assert_eq!(grant(8, &[holds(4, 4), wants], 1, 0).0, 4);
    assert_eq!(grant(8, &[holds(9, 9), wants], 1, 0).0, 0, "more than the limit");
}

/// A small generator of numbers (xorshift), so that a failure can be repeated.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }

    fn index(&mut self, end: usize) -> usize {
        usize::try_from(self.below(end as u64)).expect("small")
    }
}

/// A node of the simulation, with what it really does.
#[derive(Clone, Default)]
struct Machine {
    /// What the database has of it, for each host.
    known: Vec<Claim>,
    /// The grant that it obeys, for each host. `running`, `waiting`: its jobs there.
    granted: Vec<usize>,
    running: Vec<usize>,
    waiting: Vec<usize>,
    /// Until when it is dead, or does not reach the database.
    away: u64,
    is_dead: bool,
    /// When the database heard of it last.
    seen: u64,
    /// Since when something waits for each host while nothing runs there.
    hungry: Vec<Option<u64>>,
}

const BEAT: u64 = 2;
const GONE: u64 = 15;

/// One node asks the database: what `hosts` does in a transaction, for places of jobs only.
fn ask(machines: &mut [Machine], me: usize, limits: &[usize], now: u64) {
    machines[me].seen = now;
    let live: Vec<usize> = (0..machines.len()).filter(|at| now - machines[*at].seen <= GONE).collect();
    let place = live.iter().position(|at| *at == me).expect("it lives");
    for (host, limit) in limits.iter().enumerate() {
        let mine = &machines[me];
        let (running, wanted) = (mine.running[host], mine.running[host] + mine.waiting[host]);
        let claims: Vec<Claim> = live
            .iter()
            .map(|at| match *at == me {
                true => Claim { granted: mine.granted[host], used: running, wanted, since: mine.known[host].since },
                false => machines[*at].known[host],
            })
            .collect();
        let (granted, since) = grant(*limit, &claims, place, i64::try_from(now).expect("small"));
        machines[me].granted[host] = granted;
        machines[me].known[host] = Claim { granted, used: running, wanted, since };
    }
}

impl Machine {
    fn new(hosts: usize) -> Self {
        let none = vec![0; hosts];
        Self {
            known: vec![Claim::default(); hosts],
            granted: none.clone(),
            running: none.clone(),
            waiting: none,
            hungry: vec![None; hosts],
            ..Self::default()
        }
    }

    fn is_short(&self) -> bool {
        (0..self.waiting.len()).any(|host| self.waiting[host] > 0 && self.running[host] >= self.granted[host])
    }

    /// A second passes. Returns how many jobs began.
    fn pass(&mut self, now: u64, is_busy: bool, random: &mut Random) -> usize {
        let hosts = self.running.len();
        // Half a percent of the nodes is away at any time, in half of the cases because they were killed.
        if now >= self.away && random.below(20_000) == 0 {
            self.away = now + 5 + random.below(200);
            self.is_dead = random.below(2) == 0;
        }
        let is_away = now < self.away;
        if is_away && (self.is_dead || now - self.seen > 10) {
            // The jobs of a node that is cut off may exceed the limit, once others have its places.
            // In the simulation these jobs end before that: 10 s (`CUT`) after its last answer.
            self.running.fill(0);
            self.granted.fill(0);
            self.hungry.fill(None);
            return 0;
        }
        let host = random.index(hosts);
        self.waiting[host] += random.index(if is_busy { 9 } else { 2 });
        let mut begun = 0;
        for host in 0..hosts {
            self.running[host] -= random.index(self.running[host] + 1);
            let begins = self.granted[host].saturating_sub(self.running[host]).min(self.waiting[host]);
            self.running[host] += begins;
            self.waiting[host] -= begins;
            begun += begins;
            let is_hungry = self.waiting[host] > 0 && self.running[host] == 0 && !is_away;
            self.hungry[host] = is_hungry.then(|| self.hungry[host].unwrap_or(now));
        }
        begun
    }
}

/// Runs a fleet for so many seconds. Returns how many jobs began.
fn simulate(nodes: usize, limits: &[usize], seconds: u64) -> usize {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut machines = vec![Machine::new(limits.len()); nodes];
    let mut begun = 0;
    for now in 1..=seconds {
        for (at, machine) in machines.iter_mut().enumerate() {
            // A third of the nodes has far more work than the others.
            begun += machine.pass(now, at % 3 == 0, &mut random);
        }
        for (host, limit) in limits.iter().enumerate() {
            let running: usize = machines.iter().map(|machine| machine.running[host]).sum();
            assert!(running <= *limit, "{running} of {limit} at {now} s");
            // All nodes have had a turn after `nodes / limit` turns. Three more turns are for nodes
            // that are gone and hold a place. A turn is counted as 16 s: it lasts until its job has
            // ended, and the others learn that a beat later.
            let longest = 16 * (nodes.div_ceil(*limit) as u64 + 3);
            let is_starved = |machine: &Machine| machine.hungry[host].is_some_and(|since| now - since > longest);
            assert!(
                !machines.iter().any(is_starved),
                "nothing of a node began at host {host} for {longest} s, at {now} s"
            );
        }
        for me in 0..nodes {
            // A node that has too little asks every second, the others every two seconds.
            let is_due = (now + me as u64).is_multiple_of(BEAT) || machines[me].is_short();
            if is_due && now >= machines[me].away {
                ask(&mut machines, me, limits, now);
            }
        }
    }
    begun
}

/// For a few minutes; with `MIRROR_PUSH_POINTS=all`, for a day.
#[test]
#[expect(clippy::disallowed_methods, reason = "how long it takes is said in the environment")]
fn no_limit_is_exceeded_and_nobody_starves_in_a_fleet_of_a_hundred_nodes() {
    let hosts: Vec<usize> = (0..50).map(|host| [1, 3, 8, 64, 250][host % 5]).collect();
    let is_whole = std::env::var("MIRROR_PUSH_POINTS").is_ok_and(|points| points == "all");
    let seconds = if is_whole { 24 * 3600 } else { 240 };
    assert!(simulate(100, &hosts, seconds) > 100 * usize::try_from(seconds).expect("small"));
}

#[test]
fn no_limit_is_exceeded_and_nobody_starves_in_a_day_of_a_small_fleet() {
    assert!(simulate(5, &[1, 2, 8], 24 * 3600) > 100_000);
}
