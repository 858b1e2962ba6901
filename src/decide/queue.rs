//! When to look at which container: a queue of keys that never runs one key twice at the same time.
//!
//! # Guarantees
//! - A key is either waiting for its deadline, running, or not here. It never runs twice at once.
//! - However often a key is poked before it starts, it runs once, at the earliest of the deadlines.
//! - However often a key is poked while it runs, it runs once more: what the run did not see yet is
//!   looked at. No poke is lost.
//! - At most `parallel` keys run. While that many do, nothing is due.
//! - Keys start in the order of their deadlines, so none is starved by one that is poked often.
//!
//! # Assumptions
//! - Whoever starts a key says [`Queue::finished`], also when the run failed or panicked.
//! - Time is a value and may stand still or go back: a deadline then comes later, and is not lost.
//!
//! Each call costs a logarithm of the number of keys.

use std::{
    collections::{BTreeMap, BTreeSet},
    num::NonZeroUsize,
    time::Duration,
};

/// Keys and when they are due. `T` is any clock's reading.
#[derive(Clone, Debug)]
pub struct Queue<K, T> {
    parallel: NonZeroUsize,
    entries: BTreeMap<K, Entry<T>>,
    /// The waiting keys by deadline; exactly those whose entry is `Waiting`.
    waiting: BTreeSet<(T, K)>,
    running: usize,
}

#[derive(Clone, Copy, Debug)]
enum Entry<T> {
    Waiting(T),
    Running {
        /// Poked since it started: run again then.
        again: Option<T>,
        /// The key is gone: what the run asks for itself does not count any more.
        forgotten: bool,
    },
}

impl<K: Ord + Clone, T: Ord + Copy> Queue<K, T> {
    /// An empty queue that lets `parallel` keys run at once.
    pub const fn new(parallel: NonZeroUsize) -> Self {
        Self { parallel, entries: BTreeMap::new(), waiting: BTreeSet::new(), running: 0 }
    }

    /// Look at `key` as soon as possible.
    pub fn poke(&mut self, key: K, now: T) {
        self.poke_at(key, now);
    }

    /// Look at `key` at `when`, or earlier if something earlier is known already.
    pub fn poke_at(&mut self, key: K, when: T) {
        match self.entries.get_mut(&key) {
            None => self.wait(key, when),
            Some(Entry::Waiting(due)) => {
                if when < *due {
                    let before = std::mem::replace(due, when);
                    self.waiting.remove(&(before, key.clone()));
                    self.waiting.insert((when, key));
                }
            }
            Some(Entry::Running { again, .. }) => *again = earliest(*again, Some(when)),
        }
    }

    /// When [`Self::take_due`] has something to give; `None` while it cannot: nothing waits, or as
    /// many keys run as may, and the next thing to wait for is the end of a run.
    pub fn next_deadline(&self) -> Option<T> {
        if self.running >= self.parallel.get() {
            return None;
        }
        self.waiting.first().map(|(due, _)| *due)
    }

    /// The keys that are due and may start, the longest due first. They count as running from here
    /// on, until [`Self::finished`].
    #[must_use = "these keys count as running until `finished`"]
    pub fn take_due(&mut self, now: T) -> Vec<K> {
        let mut due = Vec::new();
        while self.next_deadline().is_some_and(|deadline| deadline <= now) {
            let Some((_, key)) = self.waiting.pop_first() else { break };
            self.entries.insert(key.clone(), Entry::Running { again: None, forgotten: false });
            self.running += 1;
            due.push(key);
        }
        due
    }

    /// The run of `key` is over and asks to be repeated at `next`. Pokes during the run come on top:
    /// the earliest counts. A key that was not running is left as it is.
    pub fn finished(&mut self, key: &K, next: Option<T>) {
        let Some(&Entry::Running { again, forgotten }) = self.entries.get(key) else { return };
        let Some((key, _)) = self.entries.remove_entry(key) else { return };
        self.running -= 1;
        if let Some(when) = earliest(again, next.filter(|_| !forgotten)) {
            self.wait(key, when);
        }
    }

    /// `key` is gone: nothing of it waits any more, and a run of it that is still going does not
    /// bring it back. A later poke does.
    pub fn forget(&mut self, key: &K) {
        match self.entries.get_mut(key) {
            None => {}
            Some(Entry::Waiting(_)) => {
                if let Some((key, Entry::Waiting(due))) = self.entries.remove_entry(key) {
                    self.waiting.remove(&(due, key));
                }
            }
            Some(Entry::Running { again, forgotten }) => {
                *again = None;
                *forgotten = true;
            }
        }
    }

    /// How many keys run.
    pub const fn running(&self) -> usize {
        self.running
    }

    /// How many keys wait.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    fn wait(&mut self, key: K, when: T) {
        self.waiting.insert((when, key.clone()));
        self.entries.insert(key, Entry::Waiting(when));
    }
}

fn earliest<T: Ord>(one: Option<T>, other: Option<T>) -> Option<T> {
    one.into_iter().chain(other).min()
}

/// How long to wait after the `attempt`th failure in a row, counted from 1: 1 s, doubled each time, at
/// most 5 minutes. It never gives up, and it is the same each time it is asked.
pub const fn backoff(attempt: u32) -> Duration {
    const MOST: u64 = 300;
    let doublings = attempt.saturating_sub(1);
    if doublings > 8 {
        return Duration::from_secs(MOST);
    }
    Duration::from_secs(1 << doublings)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(parallel: usize) -> Queue<&'static str, u64> {
        Queue::new(NonZeroUsize::new(parallel).unwrap())
    }

    #[test]
    fn pokes_before_the_start_are_one_run_at_the_earliest_deadline() {
        let mut queue = queue(4);
        queue.poke_at("db", 20);
        queue.poke_at("db", 10);
        queue.poke_at("db", 30);
        assert_eq!(queue.next_deadline(), Some(10));
        assert_eq!(queue.take_due(9), [""; 0]);
        assert_eq!(queue.take_due(10), ["db"]);
        assert_eq!(queue.take_due(100), [""; 0]);
        queue.finished(&"db", None);
        assert_eq!((queue.next_deadline(), queue.running(), queue.waiting()), (None, 0, 0));
    }

    #[test]
    fn pokes_during_a_run_are_exactly_one_more() {
        let mut queue = queue(4);
        queue.poke("db", 1);
        assert_eq!(queue.take_due(1), ["db"]);
        for now in 2..10 {
            queue.poke("db", now);
            assert_eq!(queue.take_due(now), [""; 0], "it runs already");
            assert_eq!(queue.next_deadline(), None, "nothing to wake up for");
        }
        queue.finished(&"db", Some(500));
        assert_eq!(queue.next_deadline(), Some(2), "the first poke counts, not the run's own wish");
        assert_eq!(queue.take_due(10), ["db"]);
        queue.finished(&"db", Some(500));
        assert_eq!(queue.next_deadline(), Some(500));
    }

    #[test]
    fn a_run_that_asks_for_sooner_than_the_poke_gets_it() {
        let mut queue = queue(1);
        queue.poke("db", 1);
        assert_eq!(queue.take_due(1), ["db"]);
        queue.poke_at("db", 900);
        queue.finished(&"db", Some(30));
        assert_eq!(queue.next_deadline(), Some(30));
        assert_eq!(queue.take_due(1000), ["db"]);
        queue.finished(&"db", None);
        assert_eq!(queue.next_deadline(), None, "the two were one");
    }

    #[test]
    fn no_more_run_than_may_and_the_longest_due_comes_first() {
        let mut queue = queue(2);
        queue.poke("c", 3);
        queue.poke("a", 1);
        queue.poke("b", 2);
        assert_eq!(queue.take_due(9), ["a", "b"]);
        assert_eq!(queue.next_deadline(), None, "full: a sleep until then would not help");
        assert_eq!(queue.take_due(9), [""; 0]);
        queue.finished(&"b", Some(9));
        assert_eq!(queue.next_deadline(), Some(3));
        assert_eq!(queue.take_due(9), ["c"], "b, poked again, waits behind c");
    }

    #[test]
    fn what_is_forgotten_comes_back_only_when_poked() {
        let mut queue = queue(2);
        queue.poke_at("waiting", 5);
        queue.forget(&"waiting");
        queue.forget(&"unknown");
        assert_eq!((queue.next_deadline(), queue.waiting()), (None, 0));

        queue.poke("gone", 1);
        assert_eq!(queue.take_due(1), ["gone"]);
        queue.poke("gone", 2);
        queue.forget(&"gone");
        assert_eq!(queue.running(), 1, "the run goes on");
        queue.finished(&"gone", Some(60));
        assert_eq!((queue.next_deadline(), queue.running()), (None, 0));

        queue.poke("back", 1);
        assert_eq!(queue.take_due(1), ["back"]);
        queue.forget(&"back");
        queue.poke("back", 3);
        queue.finished(&"back", None);
        assert_eq!(queue.next_deadline(), Some(3), "a container of that name came back");
    }

    #[test]
    fn an_end_without_a_start_changes_nothing() {
        let mut queue = queue(1);
        queue.finished(&"db", Some(1));
        assert_eq!(queue.next_deadline(), None);
        queue.poke_at("db", 5);
        queue.finished(&"db", Some(1));
        assert_eq!((queue.next_deadline(), queue.running()), (Some(5), 0));
    }

    #[test]
    fn back_off_doubles_up_to_five_minutes_and_stays_there() {
        let seconds: Vec<u64> = (0..=11).map(|attempt| backoff(attempt).as_secs()).collect();
        assert_eq!(seconds, [1, 1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
        assert_eq!(backoff(u32::MAX).as_secs(), 300);
    }

    /// The plainest thing that keeps the promises: a list that is searched.
    #[derive(Default)]
    struct Model {
        waiting: Vec<(u64, u8)>,
        running: Vec<(u8, Option<u64>, bool)>,
    }

    impl Model {
        fn poke_at(&mut self, key: u8, when: u64) {
            if let Some(run) = self.running.iter_mut().find(|run| run.0 == key) {
                run.1 = Some(run.1.map_or(when, |again| again.min(when)));
            } else {
                let best = self.waiting.iter().filter(|w| w.1 == key).map(|w| w.0).fold(when, u64::min);
                self.waiting.retain(|w| w.1 != key);
                self.waiting.push((best, key));
                self.waiting.sort_unstable();
            }
        }

        fn take_due(&mut self, now: u64, parallel: usize) -> Vec<u8> {
            let room = parallel - self.running.len();
            let due: Vec<u8> = self.waiting.iter().filter(|w| w.0 <= now).take(room).map(|w| w.1).collect();
            self.waiting.retain(|w| !due.contains(&w.1));
            self.running.extend(due.iter().map(|&key| (key, None, false)));
            due
        }

        fn finished(&mut self, key: u8, next: Option<u64>) {
            let Some(at) = self.running.iter().position(|run| run.0 == key) else { return };
            let (_, again, forgotten) = self.running.remove(at);
            for when in again.into_iter().chain(if forgotten { None } else { next }) {
                self.poke_at(key, when);
            }
        }

        fn forget(&mut self, key: u8) {
            self.waiting.retain(|w| w.1 != key);
            for run in self.running.iter_mut().filter(|run| run.0 == key) {
                (run.1, run.2) = (None, true);
            }
        }

        fn next_deadline(&self, parallel: usize) -> Option<u64> {
            if self.running.len() >= parallel { None } else { self.waiting.first().map(|w| w.0) }
        }
    }

    /// Knuth's MMIX generator: the same histories each time.
    struct Random(u64);

    impl Random {
        fn below(&mut self, bound: u64) -> u64 {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (self.0 >> 33) % bound
        }
    }

    #[test]
    fn random_histories_agree_with_the_plain_model() {
        for seed in 0..300 {
            let mut random = Random(seed);
            let parallel = 1 + usize::try_from(random.below(4)).unwrap();
            let mut queue = Queue::new(NonZeroUsize::new(parallel).unwrap());
            let mut model = Model::default();
            let mut now = 100;
            for step in 0..300 {
                let key = u8::try_from(random.below(6)).unwrap();
                match random.below(10) {
                    0..=2 => {
                        queue.poke(key, now);
                        model.poke_at(key, now);
                    }
                    3 => {
                        let when = now + random.below(30);
                        queue.poke_at(key, when);
                        model.poke_at(key, when);
                    }
                    4 => {
                        queue.forget(&key);
                        model.forget(key);
                    }
                    5 | 6 => {
                        let due = queue.take_due(now);
                        assert_eq!(due, model.take_due(now, parallel), "seed {seed}, step {step}");
                    }
                    7 | 8 => {
                        let next = (random.below(2) == 0).then(|| now + random.below(30));
                        queue.finished(&key, next);
                        model.finished(key, next);
                    }
                    // Now and then the clock goes back.
                    _ => now = (now + random.below(12)).saturating_sub(3),
                }
                assert_eq!(queue.next_deadline(), model.next_deadline(parallel), "seed {seed}, step {step}");
                assert_eq!(queue.running(), model.running.len(), "seed {seed}, step {step}");
                assert_eq!(queue.waiting(), model.waiting.len(), "seed {seed}, step {step}");
                assert_eq!(queue.entries.len(), queue.running() + queue.waiting(), "nothing leaks");
            }
        }
    }

    #[test]
    fn a_hundred_thousand_pokes_take_no_time() {
        // A list that is searched would take minutes for these.
        let mut queue: Queue<u32, u64> = Queue::new(NonZeroUsize::new(4).unwrap());
        for key in 0..100_000 {
            queue.poke_at(key, u64::from(key % 977));
        }
        for key in 0..100_000 {
            queue.poke_at(key, 0);
        }
        let mut runs = 0;
        loop {
            let due = queue.take_due(0);
            if due.is_empty() {
                break;
            }
            for key in due {
                queue.finished(&key, None);
                runs += 1;
            }
        }
        assert_eq!(runs, 100_000);
    }
}
