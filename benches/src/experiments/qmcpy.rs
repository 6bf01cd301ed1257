//! kc-qmc: convergence orders of the point sets, the reliability and the cost of adaptive cubature, and the speed
//! of both beside QMCPy, SciPy and torch.

mod cubature;
mod points;

use super::Ctx;
pub(crate) use points::first;

pub(crate) fn run(ctx: &mut Ctx) -> anyhow::Result<()> {
    points::run(ctx)?;
    cubature::run(ctx)
}
