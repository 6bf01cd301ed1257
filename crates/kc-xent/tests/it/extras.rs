//! Shards, largest logits, accuracy, likelihoods.

use kc_core::Tensor;
use kc_testing::{Tol, assert_close, each_isa, relative_error};
use kc_xent::{
    Filter, Need, Reduction, Seeds, XentConfig, accuracy, linear_cross_entropy,
    linear_cross_entropy_with_grad, nll_of, partition, perplexity, shard_backward, shard_forward,
    shard_merge, top_k, z_loss,
};

use crate::support::{Case, input};

#[test]
fn shards_add_up() {
    let case = Case::new(50, 203, 20, 1);
    let weights: Vec<f32> = (0..203).map(|j| 0.5 + (j % 3) as f32).collect();
    for (label_smoothing, class_weights) in [(0.0, None), (0.1, Some(weights.clone())), (0.0, Some(weights))]
    {
        let config = XentConfig {
            filter: Filter::None,
            label_smoothing,
            class_weights,
            softcap: Some(9.0),
            z_loss: 1e-2,
            shift: 1,
            ..XentConfig::default()
        };
        let (whole, want) =
            linear_cross_entropy_with_grad(&case.input(), Seeds::default(), Need::default(), &config)
                .expect("whole");
        for world in [1, 3, 7] {
            let words: Vec<_> =
                (0..world).map(|rank| partition(203, rank, world).expect("a shard")).collect();
            assert_eq!(words.iter().map(ExactSizeIterator::len).sum::<usize>(), 203);
            let part = |rank: usize| {
                let c = case.c.view().slice(0, words[rank].clone()).expect("rows");
                input(case.e.view(), c, &case.targets).bias(&case.bias[words[rank].clone()]).expect("a bias")
            };
            let shards: Vec<_> = (0..world)
                .map(|rank| shard_forward(&part(rank), words[rank].start, 203, &config).expect("a shard"))
                .collect();
            let merged = shard_merge(&shards, &part(0), 203, &config).expect("merged");
            assert!((merged.total() / whole.total() - 1.0).abs() < 1e-6);
            assert!((merged.z_loss / whole.z_loss - 1.0).abs() < 1e-6);
            assert_close(merged.lse.as_slice(), whole.lse.as_slice(), Tol::rel(1e-6));
            let (mut de, mut dc) = (vec![0.0f32; 50 * 20], Vec::new());
            for (rank, shard) in shards.iter().enumerate() {
                let seeds = Seeds::default();
                let grads = shard_backward(&merged, shard, &part(rank), 203, seeds, Need::default(), &config);
                let grads = grads.expect("gradients");
                de.iter_mut().zip(grads.de.expect("de").as_slice()).for_each(|(sum, g)| *sum += g);
                dc.extend_from_slice(grads.dc.expect("dc").as_slice());
            }
            assert!(relative_error(&de, want.de.as_ref().expect("de").as_slice()) < 1e-5);
            assert!(relative_error(&dc, want.dc.as_ref().expect("dc").as_slice()) < 1e-5);
        }
    }
}

#[test]
fn the_largest_logits() {
    let case = Case::new(110, 300, 12, 2);
    each_isa(|isa| {
        let config = XentConfig { isa, ..XentConfig::default() };
        let (words, logits) = top_k(&case.input(), 7, &config).expect("words");
        let mut right = 0;
        for i in 0..110 {
            let row = case.e.view().row(i).to_vec();
            let logit = |j: usize| {
                let dot: f64 = row
                    .iter()
                    .zip(case.c.view().row(j).to_vec())
                    .map(|(x, y)| f64::from(*x) * f64::from(y))
                    .sum();
                dot + f64::from(case.bias[j])
            };
            let mut order: Vec<usize> = (0..300).collect();
            order.sort_by(|&a, &b| logit(b).total_cmp(&logit(a)));
            for (k, &word) in order[..7].iter().enumerate() {
                assert_eq!(words[[i, k]], word as i64);
                assert!((f64::from(logits[[i, k]]) - logit(word)).abs() < 1e-4);
            }
            right += usize::from(case.targets[i] == order[0] as i64);
        }
        let valid = case.targets.iter().filter(|t| **t >= 0).count();
        assert_eq!(accuracy(&case.input(), &config).expect("a share"), right as f64 / valid as f64);
    });
    // Equals: the first word.
    let same = Tensor::from_slice([3, 1], &[1.0f32, 1.0, 1.0]).expect("c");
    let one = Tensor::from_slice([1, 1], &[2.0f32]).expect("e");
    let (words, _) = top_k(&input(one.view(), same.view(), &[0]), 3, &XentConfig::default()).expect("words");
    assert_eq!(words.as_slice(), [0, 1, 2]);
}

#[test]
fn likelihoods_and_perplexity() {
    let case = Case::new(40, 90, 10, 3);
    let config = XentConfig { shift: 1, label_smoothing: 0.5, ..XentConfig::default() };
    let plain = XentConfig { label_smoothing: 0.0, ..config.clone() };
    let nll = nll_of(&case.input(), &config).expect("likelihoods");
    let forward = linear_cross_entropy(&case.input(), &plain).expect("a loss");
    let mean = nll.as_slice().iter().sum::<f64>() / forward.n_valid as f64;
    assert!((mean - forward.total()).abs() < 1e-9);
    let (found, tokens) = perplexity(&case.input(), &config).expect("a perplexity");
    assert_eq!(tokens, forward.n_valid);
    assert!((found - mean.exp()).abs() < 1e-6 * found);
    let with = XentConfig { z_loss: 0.3, ..plain };
    let forward = linear_cross_entropy(&case.input(), &with).expect("a loss");
    let apart = z_loss(&forward.lse, &forward.valid, 0.3, Reduction::Mean);
    assert!((apart - forward.z_loss).abs() < 1e-12);
}
