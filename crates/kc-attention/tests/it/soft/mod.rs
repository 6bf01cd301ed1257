//! Softmax-free attention.

mod golden;
mod properties;
mod training;
mod vit;
