//! Tiles of 14 x 32 (f32) and 14 x 16 (f64): 28 of the 32 registers hold sums, two hold columns.

#![expect(unsafe_code, reason = "AVX-512 intrinsics on packed panels")]

use super::tile::float_tile;

float_tile!(
    f32, "avx512f", 16, 14 x 2,
    _mm512_setzero_ps, _mm512_set1_ps, _mm512_loadu_ps, _mm512_storeu_ps, _mm512_fmadd_ps, _mm512_mul_ps
);
float_tile!(
    f64, "avx512f", 8, 14 x 2,
    _mm512_setzero_pd, _mm512_set1_pd, _mm512_loadu_pd, _mm512_storeu_pd, _mm512_fmadd_pd, _mm512_mul_pd
);
