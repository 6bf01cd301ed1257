//! The loops in safe code, for any processor.

/// Adding this to a number below `2^22` leaves the nearest integer, half to even, in the low bits of the sum.
pub(super) const MAGIC: f32 = 12_582_912.0;

#[inline(always)]
pub(super) fn add(row: &[f32], sums: &mut [f64]) {
    for (sum, &x) in sums.iter_mut().zip(row) {
        *sum += f64::from(x);
    }
}

#[inline(always)]
pub(super) fn largest(row: &[f32], mean: &[f32]) -> u32 {
    const ABS: u32 = 0x7fff_ffff;
    let mut top = 0u32;
    if mean.is_empty() {
        for &x in row {
            top = top.max(x.to_bits() & ABS);
        }
    } else {
        for (&x, &mean) in row.iter().zip(mean) {
            top = top.max((x - mean).to_bits() & ABS);
        }
    }
    top
}

/// The nearest integer within `±limit`, half to even.
#[inline(always)]
pub(super) fn round(x: f32, limit: f32) -> i32 {
    let x = if x > limit { limit } else { x };
    let x = if x < -limit { -limit } else { x };
    (x + MAGIC).to_bits() as i32 - MAGIC.to_bits() as i32
}

#[inline(always)]
pub(super) fn encode(row: &[f32], mean: &[f32], inverse: f32, limit: f32, out: &mut [i8]) {
    if mean.is_empty() {
        for (out, &x) in out.iter_mut().zip(row) {
            *out = round(x * inverse, limit) as i8;
        }
    } else {
        for ((out, &x), &mean) in out.iter_mut().zip(row).zip(mean) {
            *out = round((x - mean) * inverse, limit) as i8;
        }
    }
}
