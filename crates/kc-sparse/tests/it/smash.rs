//! The product: fixtures, every accumulator, phase, thread count and level against the definition, masks, bad
//! input, and the claims about cost.

use std::time::Instant;

use kc_core::{Complex, Error, Isa, KcRng};
use kc_sparse::semiring::*;
use kc_sparse::smash::{generate, reference};
use kc_sparse::*;
use kc_testing::alloc::measure;
use kc_testing::each_isa;

use crate::support::{assert_bits, mtx, npz};

fn multiply(a: &Csr<f64>, b: &Csr<f64>, config: &SpgemmConfig<'_>) -> Csr<f64> {
    spgemm(PlusTimes::new(), a.view(), b.view(), config).expect("fits")
}

/// Every way to compute one product must give the same bits.
fn all_ways<S: Semiring<Left = f64, Right = f64, Out = f64>>(
    s: S,
    a: &Csr<f64>,
    b: &Csr<f64>,
    want: &Csr<f64>,
) {
    let workspace = Workspace::new();
    for accumulator in Accumulator::ALL {
        for phases in [Phases::One, Phases::Two] {
            for threads in [1, 2, 3, 7] {
                for l2_bytes in [1 << 12, 5 << 18] {
                    let config =
                        SpgemmConfig { accumulator, phases, threads, l2_bytes, ..SpgemmConfig::default() };
                    let isas = if threads == 2 { Isa::available().collect() } else { vec![Isa::best()] };
                    for isa in isas {
                        let got = spgemm_with(isa, &workspace, s, a.view(), b.view(), &config).expect("fits");
                        assert_bits(
                            &got,
                            want,
                            &format!("{accumulator:?} {phases:?} {threads} {l2_bytes} {isa}"),
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn squares_have_the_bits_of_scipy() {
    for name in ["west0067", "LFAT5", "jagmesh7", "olm1000", "cryg2500", "karate"] {
        let a = mtx(name);
        let want = npz(&format!("{name}_AA.npz"));
        assert_bits(&multiply(&a, &a, &SpgemmConfig::default()), &want, name);
        assert_bits(
            &reference::spgemm(PlusTimes::new(), a.view(), a.view(), |_, _| true).expect("fits"),
            &want,
            name,
        );
    }
    let a = mtx("lp_afiro");
    let config = SpgemmConfig { transpose_b: true, ..SpgemmConfig::default() };
    assert_bits(&multiply(&a, &a, &config), &npz("lp_afiro_AAt.npz"), "lp_afiro");
    let at = a.transpose().expect("fits");
    let config = SpgemmConfig { transpose_a: true, ..SpgemmConfig::default() };
    assert_bits(&multiply(&at, &at, &config), &npz("lp_afiro_AAt.npz"), "transposed lp_afiro");
}

#[test]
fn every_way_gives_the_same_bits() {
    let west = mtx("west0067");
    all_ways(PlusTimes::new(), &west, &west, &npz("west0067_AA.npz"));
    // Large enough for several pieces; values that round.
    for (mut a, label) in [
        (generate::rmat(9, 8, generate::GRAPH500, 1).expect("small"), "rmat"),
        (generate::band(700, 8, 1).expect("small"), "band"),
        (generate::er(9, 4, 1).expect("small"), "er"),
    ] {
        let mut rng = KcRng::new(1, 1);
        a.values_mut().iter_mut().for_each(|x| *x = rng.normal());
        let want = reference::spgemm(PlusTimes::new(), a.view(), a.view(), |_, _| true).expect("fits");
        assert!(want.nnz() > 1000, "{label}");
        all_ways(PlusTimes::new(), &a, &a, &want);
    }
}

#[test]
fn signed_zeros_infinities_and_nans_keep_their_bits() {
    // A sum that starts from a neutral element must not turn -0 into 0.
    let special = [-0.0, 0.0, -1.5, f64::INFINITY, f64::NEG_INFINITY, f64::NAN, 1e-320, 2.0];
    for mut a in [
        generate::rmat(8, 6, generate::GRAPH500, 3).expect("small"),
        generate::band(200, 6, 3).expect("small"),
    ] {
        for only_zeros in [false, true] {
            let few = if only_zeros { &special[..2] } else { &special[..] };
            let mut rng = KcRng::new(4, 0);
            a.values_mut().iter_mut().for_each(|x| *x = few[rng.below(few.len() as u64) as usize]);
            let want = reference::spgemm(PlusTimes::new(), a.view(), a.view(), |_, _| true).expect("fits");
            let negative = want.values().iter().filter(|x| **x == 0.0 && x.is_sign_negative()).count();
            assert!(!only_zeros || negative > 20, "{negative}");
            all_ways(PlusTimes::new(), &a, &a, &want);
        }
    }
}

#[test]
fn every_semiring_on_every_accumulator() {
    fn check<S: Semiring<Left = f64, Right = f64, Out = f64>>(s: S, a: &Csr<f64>) {
        let want = reference::spgemm(s, a.view(), a.view(), |_, _| true).expect("fits");
        let workspace = Workspace::new();
        // The accumulators of another semiring are used first, so that anything it leaves behind shows.
        for accumulator in Accumulator::ALL {
            let config = SpgemmConfig { accumulator, threads: 1, ..SpgemmConfig::default() };
            for isa in Isa::available() {
                let first = spgemm_with(isa, &workspace, MaxPlus::new(), a.view(), a.view(), &config);
                assert_eq!(first.expect("fits").nnz(), want.nnz());
                let got = spgemm_with(isa, &workspace, s, a.view(), a.view(), &config).expect("fits");
                assert_bits(&got, &want, &format!("{accumulator:?} {isa}"));
            }
        }
    }
    let mut rng = KcRng::new(5, 0);
    for mut a in [
        generate::rmat(8, 8, generate::GRAPH500, 5).expect("small"),
        generate::band(150, 5, 5).expect("small"),
    ] {
        a.values_mut().iter_mut().for_each(|x| *x = (rng.below(9) as f64 - 4.0) / 4.0);
        check(PlusTimes::new(), &a);
        check(MinPlus::new(), &a);
        check(MaxPlus::new(), &a);
        check(MaxMin::new(), &a);
        check(MinMax::new(), &a);
        check(MaxTimes::new(), &a);
        check(OrAnd::new(), &a);
        check(PlusPair::new(), &a);
        check(PlusFirst::new(), &a);
        check(PlusSecond::new(), &a);
        check(AnyPair::new(), &a);
    }
}

#[test]
fn runs_with_gaps_and_growth_on_both_sides() {
    // Blocks of 5 columns; rows of A take blocks in any order, with gaps, beyond one bitmap word.
    let mut rng = KcRng::new(2, 0);
    let n = 400;
    let (mut indptr, mut indices) = (vec![0i64], vec![]);
    for i in 0..n {
        let start = (i / 5 * 5) as u32;
        indices.extend(start..start + 5);
        indptr.push(indices.len() as i64);
    }
    let values = (0..indices.len()).map(|_| rng.normal()).collect();
    let b = Csr::new(n, n, indptr, indices, values).expect("valid");
    let (mut rows, mut cols, mut values) = (vec![], vec![], vec![]);
    for i in 0..n {
        for _ in 0..rng.below(6) + 3 {
            rows.push(i);
            cols.push((i + rng.below(60) as usize) % n);
            values.push(rng.normal());
        }
    }
    let a: Csr<f64> =
        Triplets { nrows: n, ncols: n, rows: &rows, cols: &cols, values: &values }.to_csr().expect("valid");
    let want = reference::spgemm(PlusTimes::new(), a.view(), b.view(), |_, _| true).expect("fits");
    all_ways(PlusTimes::new(), &a, &b, &want);
}

#[test]
fn unsorted_rows_and_repetitions_in_both_factors() {
    let mut rng = KcRng::new(3, 0);
    let mut random = |m: usize, n: usize, count: usize| -> Csr<f64> {
        let rows: Vec<usize> = (0..count).map(|_| rng.below(m as u64) as usize).collect();
        let cols: Vec<usize> = (0..count).map(|_| rng.below(n as u64) as usize).collect();
        let values: Vec<f64> = (0..count).map(|_| rng.normal()).collect();
        Triplets { nrows: m, ncols: n, rows: &rows, cols: &cols, values: &values }.to_csr().expect("valid")
    };
    let (a, b) = (random(40, 30, 400), random(30, 3000, 9000));
    assert_eq!((a.order(), b.order()), (Order::Unsorted, Order::Unsorted));
    let want = reference::spgemm(PlusTimes::new(), a.view(), b.view(), |_, _| true).expect("fits");
    all_ways(PlusTimes::new(), &a, &b, &want);
    let config = SpgemmConfig { sorted: false, accumulator: Accumulator::Hash, ..SpgemmConfig::default() };
    let loose = multiply(&a, &b, &config);
    assert_eq!(loose.order(), Order::Unsorted);
    assert_bits(&loose.view().sorted(), &want, "unsorted output");
}

/// Any semiring of f64 behind two function pointers: one compiled product serves all of them.
#[derive(Clone, Copy)]
struct Dynamic {
    multiply: fn(f64, f64) -> f64,
    add: fn(f64, f64) -> f64,
}

impl Semiring for Dynamic {
    type Left = f64;
    type Right = f64;
    type Out = f64;
    fn multiply(&self, a: f64, b: f64) -> f64 {
        (self.multiply)(a, b)
    }
    fn add(&self, x: f64, y: f64) -> f64 {
        (self.add)(x, y)
    }
}

macro_rules! dynamic {
    ($name:ident) => {
        Dynamic { multiply: |a, b| $name::new().multiply(a, b), add: |x, y| $name::new().add(x, y) }
    };
}

#[test]
fn all_semirings_match_their_fixtures() {
    let a = mtx("west0067");
    for (name, s) in [
        ("plus_times", dynamic!(PlusTimes)),
        ("min_plus", dynamic!(MinPlus)),
        ("max_plus", dynamic!(MaxPlus)),
        ("max_min", dynamic!(MaxMin)),
        ("min_max", dynamic!(MinMax)),
        ("max_times", dynamic!(MaxTimes)),
        ("or_and", dynamic!(OrAnd)),
        ("plus_pair", dynamic!(PlusPair)),
        ("plus_first", dynamic!(PlusFirst)),
        ("plus_second", dynamic!(PlusSecond)),
        ("any_pair", dynamic!(AnyPair)),
    ] {
        let got = spgemm(s, a.view(), a.view(), &SpgemmConfig::default()).expect("fits");
        assert_bits(&got, &npz(&format!("west0067_{name}.npz")), name);
    }
    // Without speculation, and stopping at the first product.
    all_ways(dynamic!(MinPlus), &a, &a, &npz("west0067_min_plus.npz"));
    all_ways(AnyPair::new(), &a, &a, &npz("west0067_any_pair.npz"));
}

#[test]
fn other_entry_types() {
    let a: Csr<i32> = Csr::new(1, 2, vec![0, 2], vec![0, 1], vec![i32::MAX, 1]).expect("valid");
    let b: Csr<i32> = Csr::new(2, 1, vec![0, 1, 2], vec![0, 0], vec![1, 1]).expect("valid");
    let c = spgemm(PlusTimes::new(), a.view(), b.view(), &SpgemmConfig::default()).expect("fits");
    assert_eq!(c.values(), [i32::MIN], "integers wrap");
    let t: Csr<bool> = Csr::new(1, 2, vec![0, 2], vec![0, 1], vec![true, true]).expect("valid");
    let u: Csr<bool> = Csr::new(2, 1, vec![0, 1, 2], vec![0, 0], vec![true, true]).expect("valid");
    for value in [
        spgemm(OrAnd::new(), t.view(), u.view(), &SpgemmConfig::default()).expect("fits").values()[0],
        spgemm(PlusTimes::new(), t.view(), u.view(), &SpgemmConfig::default()).expect("fits").values()[0],
    ] {
        assert!(value);
    }
    let i = Complex::new(0.0, 1.0);
    let z: Csr<Complex<f64>, u64> = Csr::new(1, 1, vec![0, 1], vec![0], vec![i]).expect("valid");
    let c = spgemm(PlusTimes::new(), z.view(), z.view(), &SpgemmConfig::default()).expect("fits");
    assert_eq!(c.values(), [Complex::new(-1.0, 0.0)]);
    // min_plus has no "empty" zero, max_plus no "empty" minus.
    let m: Csr<f64> = Csr::new(1, 2, vec![0, 2], vec![0, 1], vec![0.0, 5.0]).expect("valid");
    let n: Csr<f64> = Csr::new(2, 1, vec![0, 1, 2], vec![0, 0], vec![0.0, -1.0]).expect("valid");
    assert_eq!(
        spgemm(dynamic!(MinPlus), m.view(), n.view(), &SpgemmConfig::default()).expect("fits").values(),
        [0.0]
    );
    let m: Csr<f64> = Csr::new(1, 2, vec![0, 2], vec![0, 1], vec![-3.0, -5.0]).expect("valid");
    let n: Csr<f64> = Csr::new(2, 1, vec![0, 1, 2], vec![0, 0], vec![-1.0, -1.0]).expect("valid");
    assert_eq!(
        spgemm(dynamic!(MaxPlus), m.view(), n.view(), &SpgemmConfig::default()).expect("fits").values(),
        [-4.0]
    );
}

#[test]
fn cancelled_entries_and_stored_zeros_stay_until_dropped() {
    let a: Csr<f64> = Csr::new(1, 3, vec![0, 3], vec![0, 1, 2], vec![1.0, 1.0, 0.0]).expect("valid");
    let b: Csr<f64> = Csr::new(3, 2, vec![0, 1, 2, 3], vec![0, 0, 1], vec![1.0, -1.0, 4.0]).expect("valid");
    for accumulator in Accumulator::ALL {
        let config = SpgemmConfig { accumulator, ..SpgemmConfig::default() };
        let c = multiply(&a, &b, &config);
        assert_eq!((c.indices(), c.values()), (&[0, 1][..], &[0.0, 0.0][..]));
        let config = SpgemmConfig { drop_zeros: true, ..config };
        assert_eq!(multiply(&a, &b, &config).nnz(), 0);
    }
    // The first product is stored, not added to a zero.
    let a: Csr<f64> = Csr::new(1, 1, vec![0, 1], vec![0], vec![-0.0]).expect("valid");
    for accumulator in Accumulator::ALL {
        let config = SpgemmConfig { accumulator, ..SpgemmConfig::default() };
        let b: Csr<f64> = Csr::new(1, 1, vec![0, 1], vec![0], vec![1.0]).expect("valid");
        assert!(multiply(&a, &b, &config).values()[0].is_sign_negative(), "{accumulator:?}");
    }
    let a: Csr<f64> = Csr::new(1, 2, vec![0, 2], vec![0, 1], vec![f64::NAN, f64::INFINITY]).expect("valid");
    let b: Csr<f64> = Csr::new(2, 2, vec![0, 1, 2], vec![0, 1], vec![1.0, 1.0]).expect("valid");
    let c = multiply(&a, &b, &SpgemmConfig::default());
    assert!(c.values()[0].is_nan() && c.values()[1] == f64::INFINITY);
}

#[test]
fn accumulate_and_index_width() {
    let a = mtx("west0067");
    let c = spgemm_accumulate(
        PlusTimes::new(),
        a.view(),
        Some(2.0),
        a.view(),
        a.view(),
        &SpgemmConfig::default(),
    );
    let square = npz("west0067_AA.npz");
    let mut twice = square.clone();
    ops::scale(&mut twice, 2.0);
    let want = ops::add(PlusTimes::new(), a.view(), twice.view()).expect("fits");
    assert_bits(&c.expect("fits"), &want, "C + 2 A A");
    let wide: Csr<f64, u64> =
        spgemm_as(PlusTimes::new(), a.view(), a.view(), &SpgemmConfig::default()).expect("fits");
    assert_bits(&wide.with_index().expect("fits"), &square, "wide");
    let far = 1usize << 40;
    let x: Csr<f64, u64> =
        Csr::new(1, far, vec![0, 2], vec![7, far as u64 - 1], vec![1.0, 2.0]).expect("valid");
    let one: Csr<f64, u64> = Csr::new(1, 1, vec![0, 1], vec![0], vec![3.0]).expect("valid");
    let error = spgemm_as::<u32, _, _>(PlusTimes::new(), one.view(), x.view(), &SpgemmConfig::default());
    assert!(matches!(error, Err(Error::TooLarge { .. })));
    for accumulator in Accumulator::ALL {
        let config = SpgemmConfig { accumulator, ..SpgemmConfig::default() };
        let c = spgemm(PlusTimes::new(), one.view(), x.view(), &config).expect("fits");
        assert_eq!((c.indices(), c.values()), (&[7, far as u64 - 1][..], &[3.0, 6.0][..]));
    }
}

#[test]
fn masks_match_their_fixtures_and_the_definition() {
    let a = mtx("karate");
    let masked = |mask| {
        let config = SpgemmConfig { mask: Some(mask), ..SpgemmConfig::default() };
        spgemm(dynamic!(PlusPair), a.view(), a.view(), &config).expect("fits")
    };
    let inside = masked(Mask::structural(a.view()));
    assert_bits(&inside, &npz("karate_masked_plus_pair.npz"), "mask");
    assert_eq!(inside.values().iter().sum::<f64>(), 6.0 * 45.0);
    assert_bits(
        &masked(Mask::structural(a.view()).complement()),
        &npz("karate_cmasked_plus_pair.npz"),
        "complement",
    );

    let a = generate::rmat(8, 8, generate::GRAPH500, 4).expect("small");
    let mut m = generate::er(8, 2, 5).expect("small");
    m.values_mut().iter_mut().step_by(3).for_each(|x| *x = 0.0);
    let has = |i: usize, j: usize, by_value: bool| {
        let (cols, vals) = m.row(i);
        cols.iter().zip(vals).any(|(&c, &v)| c as usize == j && (!by_value || v != 0.0))
    };
    for by_value in [false, true] {
        for complement in [false, true] {
            let mask = if by_value { Mask::by_value(m.view()) } else { Mask::structural(m.view()) };
            let mask = if complement { mask.complement() } else { mask };
            let want = reference::spgemm(PlusTimes::new(), a.view(), a.view(), |i, j| {
                has(i, j, by_value) != complement
            });
            let want = want.expect("fits");
            for accumulator in Accumulator::ALL {
                for threads in [1, 3] {
                    for phases in [Phases::One, Phases::Two] {
                        let mask = Some(mask.clone());
                        let config =
                            SpgemmConfig { mask, accumulator, threads, phases, ..SpgemmConfig::default() };
                        assert_bits(
                            &multiply(&a, &a, &config),
                            &want,
                            &format!("{by_value} {complement} {config:?}"),
                        );
                    }
                }
            }
        }
    }
}

/// Counts its multiplications.
#[derive(Clone, Copy)]
struct CountingRing<'c>(&'c std::sync::atomic::AtomicU64);

impl Semiring for CountingRing<'_> {
    type Left = f64;
    type Right = f64;
    type Out = f64;
    fn multiply(&self, a: f64, b: f64) -> f64 {
        self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        a * b
    }
    fn add(&self, x: f64, y: f64) -> f64 {
        x + y
    }
}

#[test]
fn masked_products_are_dropped_before_they_are_multiplied() {
    let a = generate::er(10, 32, 6).expect("small");
    let mask: Csr<f64> = Csr::from_diagonal(&vec![1.0; 1024]).expect("valid");
    let count = std::sync::atomic::AtomicU64::new(0);
    let config = SpgemmConfig { mask: Some(Mask::structural(mask.view())), ..SpgemmConfig::default() };
    let c = spgemm(CountingRing(&count), a.view(), a.view(), &config).expect("fits");
    let products = spgemm_stats(a.view(), a.view()).expect("fits").products;
    assert!(products > 900_000);
    assert!(count.into_inner() < 3000, "about one pair per diagonal entry");
    let want = reference::spgemm(PlusTimes::new(), a.view(), a.view(), |i, j| i == j).expect("fits");
    assert_bits(&c, &want, "diagonal");
}

#[test]
fn bad_input_is_refused() {
    let new = |indptr: Vec<i64>, indices: Vec<u32>, values: Vec<f64>| Csr::new(2, 3, indptr, indices, values);
    assert!(
        matches!(new(vec![1, 1, 1], vec![0], vec![1.0]), Err(Error::Argument { arg, .. }) if arg == "indptr")
    );
    let falling = new(vec![0, 2, 1], vec![0], vec![1.0]).expect_err("falls").to_string();
    assert!(falling.contains("at 2"), "{falling}");
    let short = new(vec![0, 1, 1], vec![0, 1], vec![1.0, 1.0]).expect_err("does not end at nnz").to_string();
    assert!(short.contains("at 2"), "{short}");
    assert!(matches!(new(vec![0, 1], vec![0], vec![1.0]), Err(Error::Shape { .. })));
    assert!(matches!(new(vec![0, 1, 1], vec![0], vec![]), Err(Error::Shape { .. })));
    let far = new(vec![0, 0, 1], vec![3], vec![1.0]);
    assert_eq!(far, Err(Error::index("indices", &[1], 3, 3)));

    let a: Csr<f64> = Csr::empty(2, 3).expect("valid");
    let b: Csr<f64> = Csr::empty(4, 5).expect("valid");
    let error =
        spgemm(PlusTimes::new(), a.view(), b.view(), &SpgemmConfig::default()).expect_err("3 is not 4");
    assert!(error.to_string().contains("[2, 3]") && error.to_string().contains("[4, 5]"), "{error}");
    let b: Csr<f64> = Csr::empty(3, 5).expect("valid");
    let config = SpgemmConfig { mask: Some(Mask::structural(a.view())), ..SpgemmConfig::default() };
    let error =
        spgemm(PlusTimes::new(), a.view(), b.view(), &config).expect_err("the mask has another shape");
    assert!(matches!(error, Error::Shape { ref arg, .. } if arg == "mask"), "{error}");
    assert!(matches!(Csr::<f64, u32>::empty(1, 1 << 33), Err(Error::TooLarge { .. })));
    for (m, k, n) in [(0, 3, 2), (2, 0, 3), (2, 3, 0), (0, 0, 0)] {
        let (a, b): (Csr<f64>, Csr<f64>) =
            (Csr::empty(m, k).expect("valid"), Csr::empty(k, n).expect("valid"));
        for accumulator in Accumulator::ALL {
            let c = multiply(&a, &b, &SpgemmConfig { accumulator, ..SpgemmConfig::default() });
            assert_eq!((c.nrows(), c.ncols(), c.nnz()), (m, n, 0));
        }
    }
}

#[test]
fn a_million_diagonal_rows_take_no_time() {
    let a: Csr<f64> = Csr::from_diagonal(&vec![1.5; 1_000_000]).expect("valid");
    // Compared with walking the same arrays by the definition, so that a slow machine or build does not matter.
    let time = |work: &dyn Fn() -> Csr<f64>| {
        let once = || {
            let start = Instant::now();
            let c = work();
            assert_eq!((c.nnz(), c.values()[999_999]), (1_000_000, 2.25));
            start.elapsed()
        };
        (0..3).map(|_| once()).min().expect("three runs")
    };
    let config = SpgemmConfig { threads: 1, ..SpgemmConfig::default() };
    let ours = time(&|| multiply(&a, &a, &config));
    let plain = time(&|| reference::spgemm(PlusTimes::new(), a.view(), a.view(), |_, _| true).expect("fits"));
    assert!(ours < 4 * plain, "{ours:?} {plain:?}");
    // Other accumulators must not cost n per row either; memory stays near what the result takes.
    for accumulator in [Accumulator::Hash, Accumulator::Sort] {
        let config = SpgemmConfig { accumulator, threads: 1, ..SpgemmConfig::default() };
        let (c, memory) = measure(|| multiply(&a, &a, &config));
        assert!(memory.peak < 3 * c.bytes() + (8 << 20), "{accumulator:?}: {}", memory.peak);
    }
}

#[test]
fn product_counts_do_not_overflow_32_bits() {
    // 70,000 copies of a dense row of 70,000: 4.9e9 products, counted but not computed.
    let n = 70_000usize;
    let a: Csr<f64> =
        Csr::new(1, n, vec![0, n as i64], (0..n as u32).collect(), vec![1.0; n]).expect("valid");
    let mut indptr = vec![0i64];
    indptr.extend((1..=100).map(|i| i * n as i64));
    let b: Csr<f64> =
        Csr::new(100, n, indptr, (0..100 * n).map(|q| (q % n) as u32).collect(), vec![1.0; 100 * n])
            .expect("valid");
    // Each of the 70,000 entries of A points to one of the 100 dense rows.
    let a = Csr::new(1, 100, a.indptr().to_vec(), (0..n).map(|q| (q % 100) as u32).collect(), vec![1.0; n])
        .expect("valid");
    let mask: Csr<f64> = Csr::new(1, n, vec![0, 1], vec![12345], vec![1.0]).expect("valid");
    let config = SpgemmConfig { mask: Some(Mask::structural(mask.view())), ..SpgemmConfig::default() };
    let start = Instant::now();
    let c = multiply(&a, &b, &config);
    assert_eq!((c.indices(), c.values()), (&[12345][..], &[70_000.0][..]));
    assert!(start.elapsed().as_secs() < 5, "one allowed column does not walk 4.9e9 products");
}

#[test]
fn arrows_do_not_blow_up() {
    // One dense row, one dense column, a diagonal.
    let n = 3000usize;
    let (mut rows, mut cols) = (vec![], vec![]);
    for i in 0..n {
        for (r, c) in [(0, i), (i, 0), (i, i)] {
            rows.push(r);
            cols.push(c);
        }
    }
    let values: Vec<f64> = (0..rows.len()).map(|i| (i % 7) as f64 - 3.0).collect();
    let t = Triplets { nrows: n, ncols: n, rows: &rows, cols: &cols, values: &values };
    let a: Csr<f64> = t.to_csr().expect("valid").sum_duplicates(PlusTimes::new());
    let one = multiply(&a, &a, &SpgemmConfig { threads: 1, ..SpgemmConfig::default() });
    assert_eq!(one.nnz(), n * n);
    for accumulator in [Accumulator::Auto, Accumulator::Hash] {
        let config = SpgemmConfig { threads: 7, accumulator, l2_bytes: 1 << 14, ..SpgemmConfig::default() };
        assert_bits(&multiply(&a, &a, &config), &one, "7 threads");
    }
}

#[test]
fn every_level_at_every_width() {
    each_isa(|isa| {
        for n in [1usize, 7, 8, 9, 15, 16, 17, 63, 64, 65, 127, 128, 129, 4095, 4096, 4097] {
            let cols: Vec<u32> = (0..n as u32).filter(|c| c % 251 % 3 != 1 || n < 10).collect();
            let values: Vec<f64> = cols.iter().map(|&c| f64::from(c % 251) * 0.1 - 12.0).collect();
            let k = 4usize;
            let (mut indptr, mut indices, mut all) = (vec![0i64], vec![], vec![]);
            for r in 0..k {
                indices.extend(cols.iter().skip(r).step_by(r + 1));
                all.extend(values.iter().skip(r).step_by(r + 1));
                indptr.push(indices.len() as i64);
            }
            let b = Csr::new(k, n, indptr, indices, all).expect("valid");
            let a: Csr<f64> =
                Csr::new(2, k, vec![0, 4, 8], vec![0, 1, 2, 3, 3, 2, 1, 0], vec![0.3; 8]).expect("valid");
            let want = reference::spgemm(PlusTimes::new(), a.view(), b.view(), |_, _| true).expect("fits");
            for accumulator in Accumulator::ALL {
                let config = SpgemmConfig { accumulator, ..SpgemmConfig::default() };
                let got = spgemm_with(isa, &Workspace::new(), PlusTimes::new(), a.view(), b.view(), &config);
                assert_bits(&got.expect("fits"), &want, &format!("{isa} {n} {accumulator:?}"));
            }
        }
    });
}

#[test]
fn stats_agree_with_the_fixtures() {
    let expected = kc_testing::golden_json("smash/expected.json");
    for case in expected["products"].as_array().expect("a list") {
        let name =
            case["matrix"].as_str().expect("a name").trim_start_matches("mtx/").trim_end_matches(".mtx");
        let a = mtx(name);
        let b = if case["op"] == "A*A" { a.clone() } else { a.transpose().expect("fits") };
        let stats = spgemm_stats(a.view(), b.view()).expect("fits");
        assert_eq!(Some(stats.products), case["products"].as_u64(), "{name}");
        assert_eq!(Some(stats.nnz_c), case["nnz_c"].as_u64(), "{name}");
        assert_eq!(stats.compression, stats.products as f64 / stats.nnz_c as f64);
    }
}
