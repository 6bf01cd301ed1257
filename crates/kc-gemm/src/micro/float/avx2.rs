//! Tiles of 6 x 16 (f32) and 6 x 8 (f64): 12 of the 16 registers hold sums, two hold columns.

#![expect(unsafe_code, reason = "AVX2 and FMA intrinsics on packed panels")]

use super::tile::float_tile;

float_tile!(
    f32, "avx2,fma", 8, 6 x 2,
    _mm256_setzero_ps, _mm256_set1_ps, _mm256_loadu_ps, _mm256_storeu_ps, _mm256_fmadd_ps, _mm256_mul_ps
);
float_tile!(
    f64, "avx2,fma", 4, 6 x 2,
    _mm256_setzero_pd, _mm256_set1_pd, _mm256_loadu_pd, _mm256_storeu_pd, _mm256_fmadd_pd, _mm256_mul_pd
);
