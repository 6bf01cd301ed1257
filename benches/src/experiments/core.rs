//! kc-core: vector mathematics. Its claims are our own goals, as no paper publishes any.

use std::hint::black_box;

use kc_core::math::{self, Function, Real, reference};
use kc_core::{Isa, par};
use kc_testing::{ulp_distance_f32, ulp_distance_f64};

use super::{Axis, Claim, Comparison, Ctx, Plot, Rival, Series, Table, Verdict, Work};

/// Bytes of a slice that stays in the first cache of all common processors.
const CACHED: usize = 1 << 13;

pub(crate) fn run(ctx: &mut Ctx) -> anyhow::Result<()> {
    accuracy(ctx);
    bandwidth(ctx)?;
    against_std(ctx)?;
    top_k(ctx)?;
    threads(ctx)
}

/// The documented bound in ulp, of f32 and f64 alike.
fn bound(function: Function) -> f64 {
    match function {
        Function::Exp | Function::Log | Function::Sin | Function::Cos => 2.0,
        _ => 4.0,
    }
}

/// The largest error in ulp of `function` at the level of `isa`.
fn worst<T: Real>(isa: Isa, function: Function, x: &[T], ulps: impl Fn(T, f64) -> u64) -> f64 {
    let mut y = vec![T::ZERO; x.len()];
    // Lengths are equal, so there is nothing to fail.
    let _ = math::apply(isa, function, x, &mut y);
    let errors = x.iter().zip(&y).map(|(x, &y)| ulps(y, reference::function(function, x.to_f64())));
    errors.max().unwrap_or(0) as f64
}

/// Every function at every level against the definition in f64.
fn accuracy(ctx: &mut Ctx) {
    // All exponents and both signs in f32; many sizes in f64.
    let stride = ctx.pick(65_537, 4_099);
    let single = (0..=u32::MAX).step_by(stride).map(f32::from_bits).filter(|x| !x.is_nan());
    let single: Vec<f32> = single.collect();
    let mut rng = ctx.rng(1);
    let scales = [1e-3, 1.0, 10.0, 700.0];
    let count = ctx.pick(5_000, 100_000);
    let mut double = Vec::with_capacity(scales.len() * count);
    for scale in scales {
        double.extend((0..count).map(|_| scale * (2.0 * rng.uniform() - 1.0)));
    }

    let mut table =
        Table::new("Largest error in ulp against f64", &["function", "level", "f32", "f64", "goal"]);
    let (mut held, mut cases) = (0, 0);
    for function in Function::ALL {
        ctx.step(format!("accuracy of {function:?}"));
        let goal = bound(function);
        for isa in Isa::available() {
            let f32s = worst(isa, function, &single, |y, want| ulp_distance_f32(y, want as f32).into());
            let f64s = worst(isa, function, &double, ulp_distance_f64);
            cases += 2;
            held += usize::from(f32s <= goal) + usize::from(f64s <= goal);
            let name = format!("{function:?}");
            table.row([name.into(), isa.level().name().into(), f32s.into(), f64s.into(), goal.into()]);
        }
    }
    ctx.table(table);
    ctx.claim(Claim {
        statement: "elementary functions stay within 2 ulp (exp, log, sin, cos) or 4 ulp (others)".into(),
        paper: format!("{cases} cases (our goal)").into(),
        here: format!("{held} cases").into(),
        unit: "",
        verdict: Verdict::of_cases(held, cases),
        setup: format!(
            "every level, {} f32 of all exponents, {} f64 up to 700, against the standard library in f64",
            single.len(),
            double.len()
        ),
    });
}

/// Bytes read and written per second by level and size.
fn bandwidth(ctx: &mut Ctx) -> anyhow::Result<()> {
    let sizes =
        ctx.pick(vec![1 << 10, 1 << 17, 1 << 24], vec![1 << 10, 1 << 12, 1 << 14, 1 << 17, 1 << 20, 1 << 24]);
    let longest = sizes.last().copied().unwrap_or(0);
    let mut x = vec![0.0f32; longest];
    ctx.rng(2).fill_normal(&mut x);
    let mut y = vec![0.0f32; longest];

    for function in [Function::Exp, Function::Tanh, Function::Erf] {
        let mut series = Vec::new();
        for isa in Isa::available() {
            ctx.step(format!("{function:?} at {isa}"));
            let mut points = Vec::new();
            for &n in &sizes {
                let (x, y) = (&x[..n], &mut y[..n]);
                let t = ctx.time(1, || {
                    let _ = math::apply(isa, function, black_box(x), y);
                    black_box(&y);
                })?;
                points.push(((4 * n) as f64, (8 * n) as f64 / t.median / 1e9));
            }
            series.push(Series::line(isa.level().name(), points));
        }
        ctx.plot(by_size(format!("{function:?} of f32, read and written, one thread"), series));
    }

    let mut series = Vec::new();
    let mut share = 0.0;
    for isa in Isa::available() {
        ctx.step(format!("sum at {isa}"));
        let mut points = Vec::new();
        for &n in &sizes {
            let x = &x[..n];
            let t = ctx.time(1, || {
                black_box(math::sum_with(isa, black_box(x)));
            })?;
            let rate = (4 * n) as f64 / t.median;
            points.push(((4 * n) as f64, rate / 1e9));
            // Of the last level and the longest slice, in the end.
            share = rate / ctx.machine().ceilings.read_bytes;
        }
        series.push(Series::line(isa.level().name(), points));
    }
    ctx.plot(by_size("Sum of f32, read, one thread".into(), series));
    ctx.claim(Claim {
        statement: "the sum of a long slice runs at the bandwidth of reading".into(),
        paper: "0.8 (our goal)".into(),
        here: share.into(),
        unit: "of the limit",
        verdict: Verdict::at_least(share, 0.8, 0.5),
        setup: format!("{} MiB of f32, one thread, {}", (4 * longest) >> 20, Isa::best()),
    });
    Ok(())
}

fn by_size(title: String, series: Vec<Series>) -> Plot {
    Plot { title, x: Axis::log("bytes of input"), y: Axis::linear("GB/s"), series }
}

/// Beside loops over the standard library's functions and iterators.
fn against_std(ctx: &mut Ctx) -> anyhow::Result<()> {
    let n = CACHED / 4;
    let mut x = vec![0.0f32; n];
    ctx.rng(3).fill_normal(&mut x);
    let wide: Vec<f64> = x.iter().map(|&x| x.into()).collect();
    let slices = (x.as_slice(), wide.as_slice());
    faster(ctx, Function::Exp, slices, (f32::exp, f64::exp))?;
    faster(ctx, Function::Log, slices, (f32::ln, f64::ln))?;
    faster(ctx, Function::Tanh, slices, (f32::tanh, f64::tanh))?;
    faster(ctx, Function::Sigmoid, slices, (|x| 1.0 / (1.0 + (-x).exp()), |x| 1.0 / (1.0 + (-x).exp())))?;
    faster(ctx, Function::Sin, slices, (f32::sin, f64::sin))?;

    ctx.step("dot beside the standard library");
    let ours = ctx.compare(Comparison {
        case: format!("dot, {n} float32"),
        threads: 1,
        ours: &mut || {
            black_box(math::dot(black_box(&x), black_box(&x)).ok());
        },
        our_error: None,
        rivals: vec![Rival::new("loop over iterators", "std", || {
            let (x, y) = (black_box(&x), black_box(&x));
            black_box(x.iter().zip(y).map(|(x, y)| x * y).sum::<f32>());
        })],
        python: None,
        work: Some(Work::Flops((2 * n) as f64)),
        note: "",
    })?;
    let rate = (2 * n) as f64 / ours.median / ctx.machine().ceilings.f32_flops;
    ctx.claim(Claim {
        statement: "the inner product of slices in the first cache is bound by its two loads".into(),
        paper: "0.35 (our goal)".into(),
        here: rate.into(),
        unit: "of multiply-add",
        // Two loads for each multiply-add: half of the limit on processors with two ports for each.
        verdict: Verdict::at_least(rate, 0.35, 0.2),
        setup: format!("{n} f32, one thread, {}", Isa::best()),
    });
    Ok(())
}

/// Both types of `function` beside loops of `std`, and the claim about f32.
fn faster(
    ctx: &mut Ctx,
    function: Function,
    (single, double): (&[f32], &[f64]),
    std: (impl Fn(f32) -> f32 + Sync, impl Fn(f64) -> f64 + Sync),
) -> anyhow::Result<()> {
    let name = format!("{function:?}").to_lowercase();
    ctx.step(format!("{name} beside the standard library"));
    let ratio = beside(ctx, function, single, std.0)?;
    beside(ctx, function, double, std.1)?;
    ctx.claim(Claim {
        statement: format!("{name} of f32 is at least 3 times as fast as the standard library's loop"),
        paper: "3 (our goal)".into(),
        here: ratio.into(),
        unit: "x",
        verdict: Verdict::at_least(ratio, 3.0, 1.0),
        setup: format!("{} normal f32 in the first cache, one thread, {}", single.len(), Isa::best()),
    });
    Ok(())
}

/// Times `function` beside a loop of `std`; gives the time of theirs over that of ours.
fn beside<T: Real>(
    ctx: &mut Ctx,
    function: Function,
    x: &[T],
    std: impl Fn(T) -> T + Sync,
) -> anyhow::Result<f64> {
    let error = |y: &[T]| {
        let off = |(x, y): (&T, &T)| {
            let want = reference::function(function, x.to_f64());
            ((y.to_f64() - want) / want.abs().max(f64::MIN_POSITIVE)).abs()
        };
        // NaN (the logarithm of a negative number) is passed over.
        x.iter().zip(y).map(off).fold(0.0, f64::max)
    };
    let (mut y, mut z) = (vec![T::ZERO; x.len()], vec![T::ZERO; x.len()]);
    math::apply(Isa::best(), function, x, &mut y)?;
    z.iter_mut().zip(x).for_each(|(z, &x)| *z = std(x));
    let (our_error, their_error) = (error(&y), error(&z));
    let name = format!("{function:?}").to_lowercase();
    ctx.compare(Comparison {
        case: format!("{name}, {} {}", x.len(), T::DTYPE),
        threads: 1,
        ours: &mut || {
            let _ = math::apply(Isa::best(), function, black_box(x), &mut y);
            black_box(&mut y);
        },
        our_error: Some(our_error),
        rivals: vec![
            Rival::new("loop over elements", "std", || {
                z.iter_mut().zip(black_box(x)).for_each(|(z, &x)| *z = std(x));
                black_box(&mut z);
            })
            .error(their_error),
        ],
        python: None,
        work: None,
        note: "largest relative error against f64",
    })?;
    Ok(ctx.last_ratio().unwrap_or(f64::NAN))
}

/// The largest elements beside the standard library's selection of positions.
fn top_k(ctx: &mut Ctx) -> anyhow::Result<()> {
    let (n, k) = (ctx.pick(1 << 16, 1 << 20), 64);
    ctx.step("top-k beside the standard library");
    let mut x = vec![0.0f32; n];
    ctx.rng(4).fill_normal(&mut x);
    let select = |x: &[f32]| {
        let mut order: Vec<usize> = (0..x.len()).collect();
        let before = |a: &usize, b: &usize| x[*b].total_cmp(&x[*a]).then(a.cmp(b));
        order.select_nth_unstable_by(k - 1, before);
        order.truncate(k);
        order.sort_unstable_by(before);
        order
    };
    let same = math::top_k(&x, k)?.1 == select(&x);
    ctx.compare(Comparison {
        case: format!("largest {k} of {n} float32"),
        threads: 1,
        ours: &mut || {
            black_box(math::top_k(black_box(&x), k).ok());
        },
        our_error: Some(f64::from(u8::from(!same))),
        rivals: vec![
            Rival::new("select_nth_unstable", "std", || {
                black_box(select(black_box(&x)));
            })
            .error(0.0),
        ],
        python: None,
        work: Some(Work::Bytes((4 * n) as f64)),
        note: "0: the same positions in the same order",
    })?;
    let ratio = ctx.last_ratio().unwrap_or(f64::NAN);
    ctx.claim(Claim {
        statement: "the largest 64 elements are found 5 times as fast as by selection".into(),
        paper: "5 (our goal)".into(),
        here: ratio.into(),
        unit: "x",
        verdict: Verdict::at_least(ratio, 5.0, 1.0),
        setup: format!("{n} normal f32, one thread, {}", Isa::best()),
    });
    Ok(())
}

/// The house rule that no result depends on the number of threads.
fn threads(ctx: &mut Ctx) -> anyhow::Result<()> {
    ctx.step("one sum on several pools");
    let mut values = vec![0.0f32; ctx.pick(1 << 20, 1 << 23)];
    ctx.rng(0).fill_normal(&mut values);
    let sum = || par::map_reduce(values.len(), 4096, |r| math::sum(&values[r]), |a, b| a + b);
    let one = ctx.on_threads(1, sum)?;
    let pools = [2, 3, 4, 7];
    let mut equal = 0;
    for threads in pools {
        equal += usize::from(ctx.on_threads(threads, sum)?.map(f32::to_bits) == one.map(f32::to_bits));
    }
    ctx.claim(Claim {
        statement: "a sum has the same bits on any number of threads".into(),
        paper: format!("{} pools (our goal)", pools.len()).into(),
        here: format!("{equal} pools").into(),
        unit: "",
        verdict: Verdict::of_cases(equal, pools.len()),
        setup: format!("{} normal f32, pools of {pools:?} threads against one", values.len()),
    });
    Ok(())
}
