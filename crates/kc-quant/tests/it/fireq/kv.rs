//! The cache: codes, memory, and everything that moves tokens.

use kc_core::{Error, Tensor};
use kc_quant::fireq::*;
use kc_testing::normals;

fn tokens(t: usize, heads: usize, hd: usize, seed: u64) -> Tensor<f32, 3> {
    Tensor::from_slice([t, heads, hd], &normals(t * heads * hd, seed)).unwrap()
}

fn slice(x: &Tensor<f32, 3>, from: usize, to: usize) -> Tensor<f32, 3> {
    x.view().slice(0, from..to).unwrap().to_tensor().unwrap()
}

#[test]
fn codes_are_those_of_weights_with_the_same_groups() {
    for scale_type in ScaleType::ALL {
        for (hd, group) in [(64, 128), (20, 8), (33, 16), (7, 3), (128, 64)] {
            let (k, v) = (tokens(9, 3, hd, 1), tokens(9, 3, hd, 2));
            let config = KvConfig { group, scale_type, ..KvConfig::new(3, hd, 12) };
            let mut cache = KvCache4::new(config).unwrap();
            cache.append(k.view(), v.view()).unwrap();
            for (side, x) in [(Side::Key, &k), (Side::Value, &v)] {
                let rows = x.view().reshaped([27, hd]).unwrap();
                let (codes, scales) = reference::quantize(rows, group.min(hd), scale_type, 1.0).unwrap();
                let (got, stored) = cache.codes(side).unwrap();
                assert_eq!((got.as_slice(), stored.as_slice()), (codes.as_slice(), scales.as_slice()));
                let back = cache.dequantize(side).unwrap();
                for (at, y) in back.as_slice().iter().enumerate() {
                    let scale = scales[[at / hd, at % hd / group.min(hd)]];
                    assert_eq!(*y, f32::from(codes.as_slice()[at]) * scale);
                }
            }
        }
    }
}

#[test]
fn rounding_has_no_bias() {
    let k = tokens(200, 2, 128, 3);
    let mut cache = KvCache4::new(KvConfig::new(2, 128, 200)).unwrap();
    cache.append(k.view(), k.view()).unwrap();
    let (_, scales) = cache.codes(Side::Key).unwrap();
    let back = cache.dequantize(Side::Key).unwrap();
    let mean: f64 = back
        .as_slice()
        .iter()
        .zip(k.as_slice())
        .enumerate()
        .map(|(at, (b, x))| f64::from(b - x) / f64::from(scales.as_slice()[at / 128]))
        .sum::<f64>()
        / k.len() as f64;
    assert!(mean.abs() < 0.02, "{mean}");
    // Truncation would lose a quarter of a step in magnitude.
    let lost: f64 = back
        .as_slice()
        .iter()
        .zip(k.as_slice())
        .enumerate()
        .map(|(at, (b, x))| f64::from(b.abs() - x.abs()) / f64::from(scales.as_slice()[at / 128]))
        .sum::<f64>()
        / k.len() as f64;
    assert!(lost.abs() < 0.05, "{lost}");
}

#[test]
fn memory_is_half_a_byte_per_element() {
    for (heads, hd) in [(1, 128), (8, 128), (2, 64), (4, 256)] {
        let cache = KvCache4::new(KvConfig::new(heads, hd, 1000)).unwrap();
        let each = cache.bytes() as f64 / (2 * heads * hd * 1000) as f64;
        assert!((0.5..=0.55).contains(&each), "{heads} {hd}: {each}");
    }
    // It is really all that it allocates.
    let k = tokens(64, 2, 128, 1);
    let (cache, memory) = kc_testing::alloc::measure(|| {
        let mut cache = KvCache4::new(KvConfig::new(2, 128, 4096)).unwrap();
        cache.append(k.view(), k.view()).unwrap();
        cache
    });
    assert!(memory.peak < cache.bytes() + 4096, "{} {}", memory.peak, cache.bytes());
}

#[test]
fn tokens_come_and_go() {
    let (k, v) = (tokens(20, 2, 16, 4), tokens(20, 2, 16, 5));
    let mut whole = KvCache4::new(KvConfig::new(2, 16, 20)).unwrap();
    whole.append(k.view(), v.view()).unwrap();
    let mut parts = KvCache4::new(KvConfig::new(2, 16, 20)).unwrap();
    assert!(parts.is_empty());
    for (from, to) in [(0, 1), (1, 8), (8, 8), (8, 20)] {
        parts.append(slice(&k, from, to).view(), slice(&v, from, to).view()).unwrap();
    }
    let all =
        |cache: &KvCache4| (cache.dequantize(Side::Key).unwrap(), cache.dequantize(Side::Value).unwrap());
    assert_eq!(all(&parts), all(&whole));
    assert_eq!(parts.positions().collect::<Vec<_>>(), (0..20).collect::<Vec<_>>());

    // A fork lives on its own.
    let mut fork = parts.fork().unwrap();
    fork.truncate(5).unwrap();
    fork.append_at(slice(&k, 0, 2).view(), slice(&v, 0, 2).view(), &[7, 30]).unwrap();
    assert_eq!(fork.positions().collect::<Vec<_>>(), [0, 1, 2, 3, 4, 7, 30]);
    assert_eq!(slice(&all(&fork).0, 5, 7), slice(&all(&whole).0, 0, 2));
    assert_eq!(all(&parts), all(&whole));

    parts.reset();
    assert_eq!((parts.len(), parts.dequantize(Side::Key).unwrap().shape()), (0, [0, 2, 16]));
    parts.append(slice(&k, 3, 5).view(), slice(&v, 3, 5).view()).unwrap();
    assert_eq!(all(&parts).0, slice(&all(&whole).0, 3, 5));
    assert_eq!(parts.positions().collect::<Vec<_>>(), [0, 1]);
}

#[test]
fn a_window_slides() {
    let (k, v) = (tokens(23, 1, 8, 6), tokens(23, 1, 8, 7));
    let mut whole = KvCache4::new(KvConfig::new(1, 8, 23)).unwrap();
    whole.append(k.view(), v.view()).unwrap();
    let config = KvConfig { sliding: true, ..KvConfig::new(1, 8, 5) };
    for sizes in [vec![1; 23], vec![3, 4, 16], vec![23], vec![5, 5, 5, 5, 3]] {
        let mut ring = KvCache4::new(config).unwrap();
        let mut at = 0;
        for size in sizes {
            ring.append(slice(&k, at, at + size).view(), slice(&v, at, at + size).view()).unwrap();
            at += size;
        }
        assert_eq!(ring.positions().collect::<Vec<_>>(), [18, 19, 20, 21, 22]);
        for side in [Side::Key, Side::Value] {
            let want = slice(&whole.dequantize(side).unwrap(), 18, 23);
            assert_eq!(ring.dequantize(side).unwrap(), want);
        }
        // Forks and truncations of a ring that has turned.
        let mut fork = ring.fork().unwrap();
        fork.truncate(2).unwrap();
        fork.append_at(slice(&k, 0, 1).view(), slice(&v, 0, 1).view(), &[40]).unwrap();
        assert_eq!(fork.positions().collect::<Vec<_>>(), [18, 19, 40]);
        assert_eq!(ring.len(), 5);
    }
}

#[test]
fn bad_input_changes_nothing() {
    let (k, v) = (tokens(3, 2, 8, 8), tokens(3, 2, 8, 9));
    let mut cache = KvCache4::new(KvConfig::new(2, 8, 4)).unwrap();
    cache.append(k.view(), v.view()).unwrap();
    let before = cache.dequantize(Side::Key).unwrap();
    match cache.append(slice(&k, 0, 2).view(), slice(&v, 0, 2).view()) {
        Err(Error::TooLarge { need: 5, limit: 4, unit: "tokens", .. }) => {}
        other => panic!("{other:?}"),
    }
    let one = (slice(&k, 0, 1), slice(&v, 0, 1));
    for position in [0, 2] {
        let got = cache.append_at(one.0.view(), one.1.view(), &[position]);
        assert!(matches!(got, Err(Error::Argument { .. })));
    }
    let two = (slice(&k, 0, 2), slice(&v, 0, 2));
    assert!(matches!(cache.append_at(two.0.view(), two.1.view(), &[5, 5]), Err(Error::Argument { .. })));
    assert!(matches!(cache.append_at(two.0.view(), two.1.view(), &[5]), Err(Error::Shape { .. })));
    assert!(matches!(cache.append(one.0.view(), two.1.view()), Err(Error::Shape { .. })));
    let mut bad = one.1.clone();
    bad[[0, 1, 3]] = f32::NAN;
    match cache.append(one.0.view(), bad.view()) {
        Err(Error::NotFinite { index, .. }) => assert_eq!(index, [0, 1, 3]),
        other => panic!("{other:?}"),
    }
    assert!(matches!(cache.truncate(4), Err(Error::Argument { .. })));
    assert_eq!(cache.dequantize(Side::Key).unwrap(), before);
    for config in [
        KvConfig::new(0, 8, 4),
        KvConfig::new(2, 0, 4),
        KvConfig::new(2, 8, 0),
        KvConfig { group: 0, ..KvConfig::new(2, 8, 4) },
    ] {
        assert!(matches!(KvCache4::new(config), Err(Error::Argument { .. })));
    }
    assert!(KvCache4::new(KvConfig::new(usize::MAX / 4, 1 << 20, 4)).is_err());
    // Positions that end.
    cache.append_at(one.0.view(), one.1.view(), &[u32::MAX]).unwrap();
    let got = cache.append(one.0.view(), one.1.view());
    assert!(matches!(got, Err(Error::Argument { .. })));
}
