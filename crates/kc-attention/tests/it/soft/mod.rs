//! Softmax-free attention.

mod golden;
mod properties;
mod random;
mod training;
mod vit;
mod workspace;
