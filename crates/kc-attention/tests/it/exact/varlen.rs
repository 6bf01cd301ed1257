//! Packed sequences.

use kc_attention::{Mask, attention, attention_varlen};
use kc_core::{Error, Tensor, TensorView};
use kc_testing::same_on_any_pool;

use super::{normal, with_lse};

#[test]
fn each_sequence_is_attention_of_its_own() {
    let (cu_q, cu_k) = ([0, 5, 5, 130, 133], [0, 9, 20, 160, 160]);
    let (q, k, v) = (normal([133, 4, 24], 1), normal([160, 2, 24], 2), normal([160, 2, 24], 3));
    for causal in [false, true] {
        let run =
            || attention_varlen(q.view(), k.view(), v.view(), &cu_q, &cu_k, causal, &with_lse()).unwrap();
        let got = same_on_any_pool(run);
        let lse = got.lse.unwrap();
        for s in 0..4 {
            let (queries, keys) = (cu_q[s]..cu_q[s + 1], cu_k[s]..cu_k[s + 1]);
            if keys.is_empty() {
                assert!((0..24).all(|c| got.out[[queries.start, 3, c]] == 0.0));
                assert_eq!(lse[[0, queries.start]], f32::NEG_INFINITY);
                continue;
            }
            let part = |x: &Tensor<f32, 3>, range| {
                let x: TensorView<'_, f32, 3> = x.view().slice(0, range).unwrap();
                x.unsqueezed().permuted([0, 2, 1, 3]).unwrap().to_tensor().unwrap()
            };
            let (q, k, v) = (part(&q, queries.clone()), part(&k, keys.clone()), part(&v, keys));
            let mask = Mask { causal, ..Mask::NONE };
            let want = attention(q.view(), k.view(), v.view(), &mask, &with_lse()).unwrap();
            let want_lse = want.lse.unwrap();
            for (i, token) in queries.enumerate() {
                for h in 0..4 {
                    assert_eq!(lse[[h, token]], want_lse[[0, h, i]]);
                    for c in 0..24 {
                        assert_eq!(got.out[[token, h, c]], want.out[[0, h, i, c]]);
                    }
                }
            }
        }
    }
}

#[test]
fn wrong_offsets_and_shapes() {
    let (q, k) = (normal([10, 2, 4], 1), normal([12, 2, 4], 2));
    let run = |cu_q: &[usize], cu_k: &[usize]| {
        attention_varlen(q.view(), k.view(), k.view(), cu_q, cu_k, true, &with_lse()).map(|_| ())
    };
    run(&[0, 10], &[0, 12]).unwrap();
    for (cu_q, cu_k, name) in [
        (&[1, 10][..], &[0, 12][..], "cu_q"),
        (&[0, 9], &[0, 12], "cu_q"),
        (&[0, 10], &[0, 13], "cu_k"),
        (&[0, 8, 7, 10], &[0, 1, 2, 12], "cu_q"),
        (&[0, 5, 10], &[0, 12], "cu_k"),
        (&[], &[], "cu_q"),
    ] {
        let found = run(cu_q, cu_k);
        assert!(matches!(&found, Err(Error::Argument { arg, .. }) if arg == name), "{found:?}");
    }
    let three = normal([12, 3, 4], 2);
    let found = attention_varlen(q.view(), three.view(), three.view(), &[0, 10], &[0, 12], true, &with_lse());
    assert!(matches!(found, Err(Error::Shape { arg, .. }) if arg == "k"));
    let mut bad = q.clone();
    bad[[7, 1, 2]] = f32::NAN;
    let found = attention_varlen(bad.view(), k.view(), k.view(), &[0, 10], &[0, 12], true, &with_lse());
    assert!(matches!(found, Err(Error::NotFinite { arg, index, .. }) if arg == "q" && index == [7, 1, 2]));
}
