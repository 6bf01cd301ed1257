//! kc-gemm: dense products. Its claims are our own goals, as no paper publishes any.

#![expect(unsafe_code, reason = "the peer takes matrices as pointers and strides")]

use std::hint::black_box;

use anyhow::{Context as _, Result, ensure};
use kc_core::{Float, Isa, KcRng, Level, Tensor, TensorView, bf16, f16};
use kc_gemm::{Operand, PackedI8, gemm, gemm_into, gemm_u8i8_packed_into_with, gemv, gemv_t};
use serde_json::json;

use super::{Axis, Claim, Comparison, Ctx, Plot, PythonSide, Rival, Series, Table, Verdict, Work};
use crate::peers::Arrays;

/// The peer of this process.
const CRATE: &str = "gemm";
/// The Python peer that multiplies with oneMKL.
const MKL: &str = "torch";
/// Elements of a product that are compared with sums in f64.
const PROBES: usize = 256;

pub(crate) fn run(ctx: &mut Ctx) -> Result<()> {
    sizes(ctx)?;
    types(ctx)?;
    threads(ctx)?;
    vectors(ctx)
}

fn normals(ctx: &Ctx, stream: u64, shape: [usize; 2]) -> Result<Tensor<f32, 2>> {
    let mut x = Tensor::zeros(shape)?;
    ctx.rng(stream).fill_normal(x.as_mut_slice());
    Ok(x)
}

/// Operations of a square product.
fn operations(n: usize) -> f64 {
    2.0 * (n as f64).powi(3)
}

/// The largest error of some elements of `c = a b`, relative to the sum of the sizes of their terms.
fn error(mut rng: KcRng, a: &Tensor<f32, 2>, b: &Tensor<f32, 2>, c: &Tensor<f32, 2>) -> Result<f64> {
    let ([m, depth], [_, n]) = (a.shape(), b.shape());
    ensure!(c.shape() == [m, n], "a product of shape {:?}", c.shape());
    let mut worst = 0.0f64;
    for _ in 0..PROBES {
        let (i, j) = (rng.below(m as u64) as usize, rng.below(n as u64) as usize);
        let terms = (0..depth).map(|k| f64::from(a[[i, k]]) * f64::from(b[[k, j]]));
        let (sum, size) = terms.fold((0.0, 0.0), |(sum, size), x| (sum + x, size + x.abs()));
        worst = worst.max((f64::from(c[[i, j]]) - sum).abs() / size);
    }
    Ok(worst)
}

/// The peer's product of square matrices, stored by rows.
fn rival(a: &[f32], b: &[f32], c: &mut [f32], n: usize) {
    assert!([a.len(), b.len(), c.len()] == [n * n; 3], "square matrices");
    let (rows, columns) = (n as isize, 1);
    // SAFETY: all three hold n rows of n elements each, as asserted, and c overlaps neither operand.
    unsafe {
        ::gemm::gemm(
            n,
            n,
            n,
            c.as_mut_ptr(),
            columns,
            rows,
            false,
            a.as_ptr(),
            columns,
            rows,
            b.as_ptr(),
            columns,
            rows,
            0.0f32,
            1.0f32,
            false,
            false,
            false,
            ::gemm::Parallelism::None,
        );
    }
}

/// Square products of f32 beside the peers, by size.
fn sizes(ctx: &mut Ctx) -> Result<()> {
    let drawn = ctx.pick(vec![64, 128, 256, 512], vec![64, 128, 256, 512, 1024, 2048, 4096]);
    let judged_from = ctx.pick(256, 512);
    let limit = ctx.machine().ceilings.f32_flops;
    let (mut ours_by_size, mut crate_by_size, mut mkl_by_size) = (Vec::new(), Vec::new(), Vec::new());
    let (mut to_crate, mut to_mkl, mut share) = (f64::INFINITY, f64::INFINITY, f64::INFINITY);
    for n in drawn {
        ctx.step(format!("{n} x {n} float32"));
        let (a, b) = (normals(ctx, 1, [n, n])?, normals(ctx, 2, [n, n])?);
        let (mut ours, mut theirs) = (gemm(a.view(), b.view())?, Tensor::<f32, 2>::zeros([n, n])?);
        rival(a.as_slice(), b.as_slice(), theirs.as_mut_slice(), n);
        let probes = ctx.rng(3);
        let off = |c: &Tensor<f32, 2>| error(probes.clone(), &a, &b, c);
        let (our_error, their_error) = (off(&ours)?, off(&theirs)?);
        let judge = |out: &Arrays| off(&out.get("c").context("a result without c")?.to_f32("c")?);
        let (any_a, any_b) = (a.clone().into_any(), b.clone().into_any());
        let timing = ctx.compare(Comparison {
            case: format!("{n} x {n} x {n} float32"),
            threads: 1,
            ours: &mut || {
                let _ = gemm_into(1.0, black_box(a.view()), b.view(), 0.0, ours.view_mut());
                black_box(&mut ours);
            },
            our_error: Some(our_error),
            rivals: vec![
                Rival::new(CRATE, "0.19.0", || {
                    rival(black_box(a.as_slice()), b.as_slice(), theirs.as_mut_slice(), n);
                    black_box(&mut theirs);
                })
                .error(their_error),
            ],
            python: Some(PythonSide {
                arrays: &[("a", &any_a), ("b", &any_b)],
                params: json!({}),
                error: &judge,
            }),
            work: Some(Work::Flops(operations(n))),
            note: "largest error of 256 elements, relative to |a| |b|",
        })?;
        let rate = |seconds: f64| (n as f64, operations(n) / seconds / 1e9);
        ours_by_size.push(rate(timing.median));
        let (by_crate, by_mkl) = (ratio(ctx, n, CRATE), ratio(ctx, n, MKL));
        crate_by_size.extend(by_crate.map(|ratio| rate(ratio * timing.median)));
        mkl_by_size.extend(by_mkl.map(|ratio| rate(ratio * timing.median)));
        if n >= judged_from {
            to_crate = by_crate.map_or(f64::NAN, |ratio| to_crate.min(ratio));
            to_mkl = by_mkl.map_or(f64::NAN, |ratio| to_mkl.min(ratio));
            share = share.min(operations(n) / timing.median / limit);
        }
    }
    let ends = |points: &[(f64, f64)]| points.iter().map(|&(n, _)| (n, limit / 1e9)).collect();
    let mut series =
        vec![Series::line("measured limit", ends(&ours_by_size)), Series::line("kc-gemm", ours_by_size)];
    series.push(Series::line(CRATE, crate_by_size));
    if !mkl_by_size.is_empty() {
        series.push(Series::line("torch (oneMKL)", mkl_by_size));
    }
    let (x, y) = (Axis::log("n"), Axis::linear("GFLOP/s"));
    ctx.plot(Plot { title: "n x n x n products of f32, one thread".into(), x, y, series });

    let setup = format!("the smallest ratio, n from {judged_from} on, one thread, {}", Isa::best());
    let goal = |statement: &str, goal: f64, floor: f64, here: f64, unit| Claim {
        statement: statement.into(),
        paper: format!("{goal} (our goal)").into(),
        here: here.into(),
        unit,
        verdict: Verdict::at_least(here, goal, floor),
        setup: setup.clone(),
    };
    let mut mkl = goal("a product of f32 is at least 0.95 times as fast as oneMKL's", 0.95, 0.8, to_mkl, "x");
    if to_mkl.is_nan() {
        (mkl.here, mkl.verdict) = ("-".into(), Verdict::not_run("torch: --peers"));
    }
    ctx.claim(mkl);
    ctx.claim(goal(
        "a product of f32 is at least as fast as the crate gemm's (x86-v4)",
        1.0,
        0.9,
        to_crate,
        "x",
    ));
    let statement = "a product of f32 runs at 0.85 of the measured limit of multiply-adds";
    ctx.claim(goal(statement, 0.85, 0.7, share, "of the limit"));
    Ok(())
}

/// Time of `peer` over ours for the size that was compared last.
fn ratio(ctx: &Ctx, n: usize, peer: &str) -> Option<f64> {
    let case = format!("{n} x {n} x {n} float32");
    ctx.section.peers.iter().find(|row| row.case == case && row.peer == peer)?.ratio
}

/// One size, every type of element, as shares of the limit.
fn types(ctx: &mut Ctx) -> Result<()> {
    let n = ctx.pick(512, 1024);
    let title = format!("{n} x {n} x {n} by type, one thread, {}", Isa::best());
    let mut table = Table::new(title, &["type", "10^9 operations/s", "of the limit"]);
    let limit = ctx.machine().ceilings.f32_flops;
    product::<f32>(ctx, &mut table, n, limit)?;
    product::<f64>(ctx, &mut table, n, 0.5 * limit)?;
    product::<bf16>(ctx, &mut table, n, limit)?;
    product::<f16>(ctx, &mut table, n, limit)?;

    ctx.step(format!("{n} x {n} bytes"));
    let mut rng = ctx.rng(5);
    let mut bytes = || (0..n * n).map(|_| rng.below(256) as u8).collect::<Vec<u8>>();
    let (a, w) = (bytes(), bytes());
    let w: Vec<i8> = w.into_iter().map(|x| x as i8).collect();
    let packed = PackedI8::pack(TensorView::from_slice([n, n], &w)?, n)?;
    let a = TensorView::from_slice([n, n], &a)?;
    let mut out = Tensor::<i32, 2>::zeros([n, n])?;
    let t = ctx.time(1, || {
        let _ = gemm_u8i8_packed_into_with(Isa::best(), black_box(a), &packed, out.view_mut());
        black_box(&mut out);
    })?;
    let rate = operations(n) / t.median;
    let share = rate / ctx.machine().ceilings.byte_ops;
    table.row(["u8 x i8".into(), (rate / 1e9).into(), share.into()]);
    ctx.table(table);
    let vnni = Isa::best().level() >= Level::Avx512Icl;
    ctx.claim(Claim {
        statement: "a product of bytes runs at 0.7 of the measured limit of VPDPBUSD".into(),
        paper: "0.7 (our goal)".into(),
        here: if vnni { share.into() } else { "-".into() },
        unit: "of the limit",
        verdict: if vnni { Verdict::at_least(share, 0.7, 0.5) } else { Verdict::not_run("AVX-512 VNNI") },
        setup: format!("{n} x {n} x {n} random u8 x i8, packed weights, one thread, {}", Isa::best()),
    });
    Ok(())
}

fn product<T: Operand>(ctx: &Ctx, table: &mut Table, n: usize, limit: f64) -> Result<()> {
    ctx.step(format!("{n} x {n} {}", T::DTYPE));
    let draw = |stream| -> Result<Tensor<T, 2>> {
        let x = normals(ctx, stream, [n, n])?;
        let x: Vec<T> = x.as_slice().iter().map(|&x| T::from_f32(x)).collect();
        Ok(Tensor::from_slice([n, n], &x)?)
    };
    let (a, b, mut c) = (draw(1)?, draw(2)?, Tensor::<T::Sum, 2>::zeros([n, n])?);
    let (one, zero) = (T::Sum::from_f32(1.0), T::Sum::from_f32(0.0));
    let t = ctx.time(1, || {
        let _ = gemm_into(one, black_box(a.view()), b.view(), zero, c.view_mut());
        black_box(&mut c);
    })?;
    let rate = operations(n) / t.median;
    table.row([T::DTYPE.to_string().into(), (rate / 1e9).into(), (rate / limit).into()]);
    Ok(())
}

/// What a second thread brings.
fn threads(ctx: &mut Ctx) -> Result<()> {
    let n = ctx.pick(1024, 2048);
    ctx.step(format!("{n} x {n} on two threads"));
    let (a, b) = (normals(ctx, 1, [n, n])?, normals(ctx, 2, [n, n])?);
    let mut c = Tensor::<f32, 2>::zeros([n, n])?;
    let mut seconds = |threads| {
        ctx.time(threads, || {
            let _ = gemm_into(1.0, black_box(a.view()), b.view(), 0.0, c.view_mut());
            black_box(&mut c);
        })
    };
    let here = seconds(1)?.min / seconds(2)?.min;
    let enough = ctx.machine().cores >= 2;
    ctx.claim(Claim {
        statement: "two threads multiply at least 1.9 times as fast as one".into(),
        paper: "1.9 (our goal)".into(),
        here: here.into(),
        unit: "x",
        verdict: if enough { Verdict::at_least(here, 1.9, 1.5) } else { Verdict::not_run("two cores") },
        setup: format!("{n} x {n} x {n} f32, fastest runs, {}", Isa::best()),
    });
    Ok(())
}

/// Products with one vector, bound by memory.
fn vectors(ctx: &mut Ctx) -> Result<()> {
    let n = 4096;
    ctx.step(format!("{n} x {n} times a vector"));
    let (a, x) = (normals(ctx, 1, [n, n])?, normals(ctx, 2, [1, n])?);
    let bytes = (4 * n * n) as f64;
    let mut table = Table::new(format!("{n} x {n} f32 times a vector"), &["kept by", "GB/s", "of copying"]);
    let mut worst = f64::INFINITY;
    let mut copy = a.clone();
    let (rows, columns) = (
        || black_box(gemv(black_box(a.view()), x.as_slice()).ok()),
        || black_box(gemv_t(black_box(a.view()), x.as_slice()).ok()),
    );
    let sides: [(&str, &mut (dyn FnMut() + Send)); 2] =
        [("rows", &mut || drop(rows())), ("columns", &mut || drop(columns()))];
    for (name, ours) in sides {
        let timing = ctx.compare(Comparison {
            case: format!("{n} x {n} float32 by {name}, times a vector"),
            threads: 1,
            ours,
            our_error: None,
            rivals: vec![Rival::new("copy of the matrix", "std", || {
                copy.as_mut_slice().copy_from_slice(black_box(a.as_slice()));
                black_box(&mut copy);
            })],
            python: None,
            work: Some(Work::Bytes(bytes)),
            note: "a copy moves every byte twice",
        })?;
        let share = ctx.last_ratio().unwrap_or(f64::NAN) / 2.0;
        table.row([name.into(), (bytes / timing.median / 1e9).into(), share.into()]);
        worst = worst.min(share);
    }
    ctx.table(table);
    ctx.claim(Claim {
        statement: "a product with a vector reads at 0.9 of the bandwidth of a copy".into(),
        paper: "0.9 (our goal)".into(),
        here: worst.into(),
        unit: "of copying",
        verdict: Verdict::at_least(worst, 0.9, 0.7),
        setup: format!("{n} x {n} f32 by rows and by columns, the slower, one thread, {}", Isa::best()),
    });
    Ok(())
}
