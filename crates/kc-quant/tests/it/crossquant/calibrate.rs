//! Statistics: maxima, percentiles, merging, storing.

use kc_core::{Error, TensorView};
use kc_quant::crossquant::*;
use kc_testing::normals;

fn batches() -> Vec<(usize, Vec<f32>)> {
    [7, 1, 0, 30, 12].into_iter().enumerate().map(|(i, t)| (t, normals(t * 5, i as u64))).collect()
}

fn stats_of(batches: &[(usize, Vec<f32>)], capacity: usize, shard: u32) -> ColumnStats {
    let mut stats = ColumnStats::with_sample(5, capacity, 9, shard).unwrap();
    for (t, x) in batches {
        stats.observe(TensorView::from_slice([*t, 5], x).unwrap()).unwrap();
    }
    stats
}

#[test]
fn maxima_and_percentiles_are_those_of_all_tokens() {
    let all = batches();
    let stats = stats_of(&all, 100, 0);
    let rows: Vec<&[f32]> = all.iter().flat_map(|(_, x)| x.chunks(5)).collect();
    assert_eq!(stats.rows(), rows.len() as u64);
    for j in 0..5 {
        let mut column: Vec<f32> = rows.iter().map(|row| row[j].abs()).collect();
        column.sort_by(f32::total_cmp);
        assert_eq!(stats.maxima()[j], *column.last().unwrap());
        // 50 tokens: the 90th percentile stands 44.1 steps from the least.
        let want = column[44] + 0.1 * (column[45] - column[44]);
        assert!((stats.percentile(90.0).unwrap()[j] - want).abs() < 1e-6);
        assert_eq!(stats.percentile(0.0).unwrap()[j], column[0]);
    }
    assert_eq!(stats.percentile(100.0).unwrap(), stats.maxima());
}

#[test]
fn merging_is_associative_and_commutative() {
    let all = batches();
    let parts: Vec<ColumnStats> =
        all.iter().enumerate().map(|(i, b)| stats_of(std::slice::from_ref(b), 20, i as u32)).collect();
    let merged = |order: &[usize]| {
        let mut sum = ColumnStats::with_sample(5, 20, 9, 99).unwrap();
        order.iter().for_each(|&i| sum.merge(&parts[i]).unwrap());
        sum
    };
    let a = merged(&[0, 1, 2, 3, 4]);
    assert_eq!(a, merged(&[4, 2, 3, 0, 1]));
    assert_eq!((a.rows(), a.state().keys.len()), (50, 40));
    assert_eq!(a.maxima(), stats_of(&all, 20, 0).maxima());
}

#[test]
fn a_full_sample_is_fair_and_repeats() {
    let x: Vec<f32> = (0..20_000).map(|i| (i / 5) as f32).collect();
    let mut stats = ColumnStats::with_sample(5, 1000, 1, 0).unwrap();
    stats.observe(TensorView::from_slice([4000, 5], &x).unwrap()).unwrap();
    let median = stats.percentile(50.0).unwrap()[0];
    assert!((median - 2000.0).abs() < 150.0, "{median}");
    let again = {
        let mut again = ColumnStats::with_sample(5, 1000, 1, 0).unwrap();
        x.chunks(5 * 100).for_each(|x| again.observe(TensorView::from_slice([100, 5], x).unwrap()).unwrap());
        again
    };
    assert_eq!(stats, again);
}

#[test]
fn state_comes_back() {
    for stats in [stats_of(&batches(), 10, 3), ColumnStats::new(4)] {
        assert_eq!(ColumnStats::from_state(stats.state()).unwrap(), stats);
    }
    let state = stats_of(&batches(), 10, 3).state();
    let broken = |change: fn(&mut StatsState)| {
        let mut state = state.clone();
        change(&mut state);
        ColumnStats::from_state(state).is_err()
    };
    assert!(broken(|s| s.maxima[0] = -1.0) && broken(|s| s.maxima[1] = f32::NAN));
    assert!(
        broken(|s| s.keys.truncate(3)) && broken(|s| s.values.truncate(3)) && broken(|s| s.counts[3] = 2)
    );
    assert!(broken(|s| s.keys.reverse()));
}

#[test]
fn bad_input_is_named() {
    let mut stats = ColumnStats::new(2);
    let wide = [1.0f32; 3];
    assert!(matches!(
        stats.observe(TensorView::from_slice([1, 3], &wide).unwrap()),
        Err(Error::Shape { .. })
    ));
    let bad = [1.0f32, f32::INFINITY];
    assert!(matches!(
        stats.observe(TensorView::from_slice([1, 2], &bad).unwrap()),
        Err(Error::NotFinite { .. })
    ));
    assert_eq!((stats.rows(), stats.maxima()), (0, &[0.0, 0.0][..]));
    assert!(matches!(stats.percentile(101.0), Err(Error::Argument { .. })));
    assert!(matches!(stats.percentile(99.0), Err(Error::Unsupported { .. })));
    assert!(ColumnStats::with_sample(2, 0, 0, 0).is_err());
    let (mut a, b) = (stats_of(&batches(), 10, 0), stats_of(&batches(), 10, 0));
    assert!(a.merge(&b).is_err() && a.merge(&ColumnStats::new(5)).is_err() && a == b);
}
