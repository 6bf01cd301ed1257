//! Cubature: golden runs, the common rule, resuming, asking and telling, bad input.

mod bad_input;
mod golden;
mod levels;
mod resume;
mod rule;

use std::sync::Mutex;

use kc_core::Result;
use kc_qmc::{DigitalNet, DigitalNetConfig, Integrand, Lattice, LatticeConfig};

/// Three functions of two coordinates, the first easy and the last hard, that counts the values it is asked for.
#[derive(Debug, Default)]
pub(crate) struct Counted {
    asked: Mutex<[u64; 3]>,
}

impl Counted {
    pub(crate) fn asked(&self) -> [u64; 3] {
        *self.asked.lock().unwrap()
    }

    fn values(u: &[f64]) -> [f64; 3] {
        let (x, y) = (u[0], u[1]);
        [1.0 + 0.01 * x, (x * y).exp(), 10.0 * (8.0 * x + 3.0 * y).sin().abs()]
    }
}

impl Integrand for Counted {
    fn dim(&self) -> usize {
        2
    }

    fn outputs(&self) -> usize {
        3
    }

    fn evaluate(&self, u: &[f64], active: &[bool], out: &mut [f64]) -> Result<()> {
        let rows = u.len() / 2;
        let mut asked = self.asked.lock().unwrap();
        for (p, asked) in asked.iter_mut().enumerate().filter(|(p, _)| active[*p]) {
            *asked += rows as u64;
            for (u, out) in u.chunks_exact(2).zip(&mut out[p * rows..]) {
                *out = Self::values(u)[p];
            }
        }
        Ok(())
    }

    fn fingerprint(&self) -> Option<String> {
        Some("three functions".into())
    }
}

pub(crate) fn net(dim: usize, replications: usize) -> DigitalNet {
    let mut config = DigitalNetConfig::new(dim, 11u64);
    config.replications = replications;
    DigitalNet::new(config).unwrap()
}

pub(crate) fn lattice(dim: usize) -> Lattice {
    Lattice::new(LatticeConfig::new(dim, 11u64)).unwrap()
}
