//! Cross-entropy of a linear head, `loss(softmax(E C^T + b), targets)`, and its gradients, without storing the logits.

#![deny(unsafe_code)]

/// The examples of these pages run with the doc tests.
#[cfg(doctest)]
mod pages {
    #[doc = include_str!("../README.md")]
    pub struct Readme;
}
