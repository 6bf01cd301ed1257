//! Tests of the file readers and writers.

mod golden;
