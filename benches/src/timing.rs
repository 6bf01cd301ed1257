//! Measuring contestants side by side.
//!
//! A machine is never quite quiet. Contestants therefore take turns, sample by sample, so that what
//! disturbs one disturbs all; ratios of such medians are stable when the times themselves are not.
//!
//! A long call would start with the caches and the memory that another contestant has left behind (a hypervisor may
//! have taken freed pages back, and the first touch of each is then slow), so it runs once more before it is counted:
//! every contestant is timed as in a loop of its own.

use std::time::{Duration, Instant};

use crate::record::Timing;

/// How much measuring one contestant may cost.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Budget {
    /// Stop after this long ...
    pub(crate) time: Duration,
    /// ... or after this many samples, but not before the third.
    pub(crate) samples: usize,
}

/// Shorter calls are batched until a sample takes this long.
const SHORTEST_SAMPLE: f64 = 2e-3;
/// A median of fewer samples means nothing.
const FEWEST_SAMPLES: usize = 3;

/// One side of a comparison: runs its work `n` times and tells the seconds of one run.
pub(crate) trait Contestant {
    /// The mean time of one of `n` runs.
    fn sample(&mut self, n: usize) -> anyhow::Result<f64>;
}

/// A function of this process.
pub(crate) struct Here<F>(pub(crate) F);

impl<F: FnMut()> Contestant for Here<F> {
    fn sample(&mut self, n: usize) -> anyhow::Result<f64> {
        let start = Instant::now();
        for _ in 0..n {
            (self.0)();
        }
        Ok(start.elapsed().as_secs_f64() / n as f64)
    }
}

/// Times all contestants alternately, after one run each that is not counted. A contestant that fails
/// leaves the race; its place holds the reason.
pub(crate) fn race(budget: Budget, contestants: &mut [&mut dyn Contestant]) -> Vec<anyhow::Result<Timing>> {
    let mut lanes: Vec<Lane> = contestants.iter_mut().map(|c| Lane::warmed(&mut **c)).collect();
    for round in 0..budget.samples.max(FEWEST_SAMPLES) {
        let mut ran = false;
        for (lane, contestant) in lanes.iter_mut().zip(contestants.iter_mut()) {
            let spent = lane.spent >= budget.time.as_secs_f64() && round >= FEWEST_SAMPLES;
            if lane.failed.is_none() && !spent {
                lane.take(&mut **contestant);
                ran = true;
            }
        }
        if !ran {
            break;
        }
    }
    lanes.into_iter().map(Lane::finish).collect()
}

/// Times one function alone.
pub(crate) fn time(budget: Budget, body: impl FnMut()) -> anyhow::Result<Timing> {
    race(budget, &mut [&mut Here(body)]).swap_remove(0)
}

struct Lane {
    batch: usize,
    spent: f64,
    samples: Vec<f64>,
    failed: Option<anyhow::Error>,
}

impl Lane {
    fn warmed(contestant: &mut dyn Contestant) -> Self {
        // The second run is warm, so it says how many make a sample.
        let first = contestant.sample(1).and_then(|cold| Ok(cold.min(contestant.sample(1)?)));
        let (batch, failed) = match first {
            Ok(seconds) => ((SHORTEST_SAMPLE / seconds.max(1e-9)).ceil().max(1.0) as usize, None),
            Err(error) => (1, Some(error)),
        };
        Lane { batch, spent: 0.0, samples: Vec::new(), failed }
    }

    fn take(&mut self, contestant: &mut dyn Contestant) {
        let again = if self.batch == 1 { contestant.sample(1).map(drop) } else { Ok(()) };
        match again.and_then(|()| contestant.sample(self.batch)) {
            Ok(seconds) => {
                self.spent += seconds * self.batch as f64;
                self.samples.push(seconds);
            }
            Err(error) => self.failed = Some(error),
        }
    }

    fn finish(self) -> anyhow::Result<Timing> {
        match self.failed {
            Some(error) => Err(error),
            None => Timing::of(self.samples).ok_or_else(|| anyhow::anyhow!("no samples")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Scripted {
        calls: usize,
        fail_at: usize,
    }

    impl Contestant for Scripted {
        fn sample(&mut self, _: usize) -> anyhow::Result<f64> {
            self.calls += 1;
            anyhow::ensure!(self.calls != self.fail_at, "stopped");
            Ok(0.01)
        }
    }

    #[test]
    fn a_failure_does_not_disturb_the_others() {
        let (mut good, mut bad) = (Scripted { calls: 0, fail_at: 0 }, Scripted { calls: 0, fail_at: 4 });
        let budget = Budget { time: Duration::from_secs(1), samples: 5 };
        let results = race(budget, &mut [&mut good, &mut bad]);
        assert_eq!(results[0].as_ref().map(|t| t.samples).ok(), Some(5));
        assert!(results[1].is_err());
        // Two to begin with, then two for each of five samples.
        assert_eq!(good.calls, 12);
    }

    #[test]
    fn a_spent_budget_still_gives_a_median() {
        let mut slow = Scripted { calls: 0, fail_at: 0 };
        let results = race(Budget { time: Duration::ZERO, samples: 50 }, &mut [&mut slow]);
        assert_eq!(results[0].as_ref().map(|t| t.samples).ok(), Some(FEWEST_SAMPLES));
    }
}
