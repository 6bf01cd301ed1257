//! kc-core: the ground that every system stands on.

use std::hint::black_box;

use kc_core::par;

use super::{Claim, Ctx, Verdict};

/// The house rule that no result depends on the number of threads, and what a second thread brings.
pub(crate) fn run(ctx: &mut Ctx) -> anyhow::Result<()> {
    ctx.step("one sum on several pools");
    let mut values = vec![0.0f32; ctx.pick(1 << 20, 1 << 23)];
    ctx.rng(0).fill_normal(&mut values);
    let sum = || par::map_reduce(values.len(), 4096, |r| values[r].iter().sum::<f32>(), |a, b| a + b);
    let one = ctx.on_threads(1, sum)?;
    let pools = [2, 3, 4, 7];
    let mut equal = 0;
    for threads in pools {
        equal += usize::from(ctx.on_threads(threads, sum)?.map(f32::to_bits) == one.map(f32::to_bits));
    }
    let alone = ctx.time(1, || {
        black_box(sum());
    })?;
    ctx.claim(Claim {
        statement: "a sum has the same bits on any number of threads".into(),
        paper: format!("{} pools", pools.len()).into(),
        here: format!("{equal} pools").into(),
        unit: "",
        verdict: Verdict::of_cases(equal, pools.len()),
        setup: format!(
            "{} normal f32, pools of {pools:?} threads against one; {:.2} ns per element on one",
            values.len(),
            alone.median / values.len() as f64 * 1e9
        ),
    });
    Ok(())
}
