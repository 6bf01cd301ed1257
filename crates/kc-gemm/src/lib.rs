//! Matrix products with user-supplied packers and epilogues: f32, f64, f16, bf16 and u8 x i8
