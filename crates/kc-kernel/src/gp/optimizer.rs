//! First-order optimisers of a function of several variables.

use kc_core::optim;

/// How parameters (in logarithms) are moved.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum Optimizer {
    /// Resilient backpropagation: steps from signs of the gradient, grown by 1.2 and shrunk by 0.5 between `1e-6` and 50;
    /// the first is 0.1.
    #[default]
    Rprop,
    /// Adam with moments 0.9 and 0.999.
    Adam {
        /// Step, for instance 0.1.
        rate: f64,
    },
    /// Limited-memory BFGS with 10 pairs and a backtracking line search.
    Lbfgs,
}

/// An optimiser on its way. [`next`](State::next) gives the next point from the value and the gradient at the last.
pub(super) enum State {
    Rprop(Rprop),
    Adam(Adam),
    Lbfgs(Box<Lbfgs>),
}

impl State {
    pub(super) fn new(optimizer: Optimizer, x: &[f64]) -> Self {
        let zeros = || vec![0.0; x.len()];
        match optimizer {
            Optimizer::Rprop => {
                State::Rprop(Rprop { x: x.to_vec(), steps: vec![0.1; x.len()], last: zeros() })
            }
            Optimizer::Adam { rate } => {
                State::Adam(Adam { x: x.to_vec(), good: x.to_vec(), adam: optim::Adam::new(x.len(), rate) })
            }
            Optimizer::Lbfgs => State::Lbfgs(Box::new(Lbfgs {
                x: x.to_vec(),
                value: f64::INFINITY,
                gradient: zeros(),
                direction: zeros(),
                step: 1.0,
                pairs: Vec::new(),
                started: false,
            })),
        }
    }

    /// The next point to look at; `None` if there is none. A value that is not finite stands for a point where the
    /// function has none.
    pub(super) fn next(&mut self, value: f64, gradient: &[f64]) -> Option<Vec<f64>> {
        match self {
            State::Rprop(state) => state.next(value, gradient),
            State::Adam(state) => state.next(value, gradient),
            State::Lbfgs(state) => state.next(value, gradient),
        }
    }
}

pub(super) struct Rprop {
    x: Vec<f64>,
    steps: Vec<f64>,
    /// The last gradient, with 0 where a step has just been shrunk.
    last: Vec<f64>,
}

impl Rprop {
    fn next(&mut self, value: f64, gradient: &[f64]) -> Option<Vec<f64>> {
        const LEAST: f64 = 1e-6;
        let finite = value.is_finite() && gradient.iter().all(|g| g.is_finite());
        for (i, &g) in gradient.iter().enumerate() {
            if !finite {
                // Half the way back.
                let back = self.last[i].signum() * self.steps[i];
                self.steps[i] *= 0.5;
                self.x[i] += if self.last[i] == 0.0 { 0.0 } else { 0.5 * back };
                continue;
            }
            let agreement = g * self.last[i];
            self.last[i] = g;
            if agreement > 0.0 {
                self.steps[i] = (self.steps[i] * 1.2).min(50.0);
            } else if agreement < 0.0 {
                self.steps[i] = (self.steps[i] * 0.5).max(LEAST);
                self.last[i] = 0.0;
            }
            if self.last[i] != 0.0 {
                self.x[i] -= g.signum() * self.steps[i];
            }
        }
        self.steps.iter().any(|&step| step > LEAST * 1e-6).then(|| self.x.clone())
    }
}

pub(super) struct Adam {
    x: Vec<f64>,
    good: Vec<f64>,
    adam: optim::Adam,
}

impl Adam {
    fn next(&mut self, value: f64, gradient: &[f64]) -> Option<Vec<f64>> {
        if !value.is_finite() || gradient.iter().any(|g| !g.is_finite()) {
            self.adam.rate *= 0.5;
            self.x.clone_from(&self.good);
            self.adam.forget();
            return (self.adam.rate > 1e-12).then(|| self.x.clone());
        }
        self.good.clone_from(&self.x);
        self.adam.step(&mut self.x, gradient).ok()?;
        Some(self.x.clone())
    }
}

pub(super) struct Lbfgs {
    /// The last point that was accepted, with its value and gradient.
    x: Vec<f64>,
    value: f64,
    gradient: Vec<f64>,
    /// Where the search goes from there, and how far.
    direction: Vec<f64>,
    step: f64,
    /// Differences of points and of gradients.
    pairs: Vec<(Vec<f64>, Vec<f64>)>,
    started: bool,
}

impl Lbfgs {
    fn next(&mut self, value: f64, gradient: &[f64]) -> Option<Vec<f64>> {
        if self.started {
            let slope = dot(&self.direction, &self.gradient);
            // Not enough of a decrease (or no value): a shorter step.
            if value.is_nan() || value > self.value + 1e-4 * self.step * slope {
                self.step *= 0.5;
                return (self.step > 1e-12).then(|| self.tried());
            }
            let moved: Vec<f64> = self.direction.iter().map(|d| d * self.step).collect();
            let turned: Vec<f64> = gradient.iter().zip(&self.gradient).map(|(new, old)| new - old).collect();
            self.x = self.tried();
            if dot(&moved, &turned) > 1e-12 * dot(&turned, &turned) {
                self.pairs.push((moved, turned));
                if self.pairs.len() > 10 {
                    self.pairs.remove(0);
                }
            }
        } else if !value.is_finite() {
            return None;
        }
        self.started = true;
        (self.value, self.gradient) = (value, gradient.to_vec());
        self.direction = self.downhill();
        if dot(&self.direction, &self.gradient) >= 0.0 {
            return None;
        }
        // Logarithms of parameters: no step changes one by more than e^2.
        let longest = self.direction.iter().fold(0.0f64, |most, d| most.max(d.abs()));
        self.step = if self.pairs.is_empty() { 0.1 / longest } else { (2.0 / longest).min(1.0) };
        Some(self.tried())
    }

    fn tried(&self) -> Vec<f64> {
        self.x.iter().zip(&self.direction).map(|(x, d)| x + self.step * d).collect()
    }

    /// Minus the approximate inverse Hessian times the gradient, by two loops over the pairs.
    fn downhill(&self) -> Vec<f64> {
        let mut q: Vec<f64> = self.gradient.iter().map(|g| -g).collect();
        let mut shares = vec![0.0; self.pairs.len()];
        for ((moved, turned), share) in self.pairs.iter().zip(&mut shares).rev() {
            *share = dot(moved, &q) / dot(moved, turned);
            q.iter_mut().zip(turned).for_each(|(q, t)| *q -= *share * t);
        }
        if let Some((moved, turned)) = self.pairs.last() {
            let scale = dot(moved, turned) / dot(turned, turned);
            q.iter_mut().for_each(|q| *q *= scale);
        }
        for ((moved, turned), share) in self.pairs.iter().zip(&shares) {
            let by = share - dot(turned, &q) / dot(moved, turned);
            q.iter_mut().zip(moved).for_each(|(q, m)| *q += by * m);
        }
        q
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A long valley with its lowest point at (1, 1).
    fn valley(x: &[f64]) -> (f64, Vec<f64>) {
        let (a, b) = (1.0 - x[0], x[1] - x[0] * x[0]);
        (a * a + 10.0 * b * b, vec![-2.0 * a - 40.0 * x[0] * b, 20.0 * b])
    }

    #[test]
    fn all_find_the_lowest_point() {
        for (optimizer, steps) in
            [(Optimizer::Rprop, 2000), (Optimizer::Adam { rate: 0.05 }, 4000), (Optimizer::Lbfgs, 200)]
        {
            let mut x = vec![-1.0, 0.5];
            let mut state = State::new(optimizer, &x);
            for _ in 0..steps {
                let (value, gradient) = valley(&x);
                match state.next(value, &gradient) {
                    Some(next) => x = next,
                    None => break,
                }
            }
            assert!(valley(&x).0 < 1e-6, "{optimizer:?} stopped at {x:?}");
        }
    }

    #[test]
    fn a_wall_is_not_the_end() {
        for optimizer in [Optimizer::Rprop, Optimizer::Adam { rate: 0.3 }, Optimizer::Lbfgs] {
            let mut x = vec![0.5];
            let mut state = State::new(optimizer, &x);
            for _ in 0..500 {
                // No value from 1 on; the lowest point is at 0.9.
                let value = if x[0] < 1.0 { (x[0] - 0.9) * (x[0] - 0.9) } else { f64::INFINITY };
                match state.next(value, &[2.0 * (x[0] - 0.9)]) {
                    Some(next) => x = next,
                    None => break,
                }
            }
            assert!((x[0] - 0.9).abs() < 1e-2, "{optimizer:?} stopped at {x:?}");
        }
    }
}
