//! Softmax-free attention.

mod golden;
