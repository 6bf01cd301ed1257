//! Tests of the file readers and writers.

mod golden;
mod mtx;
