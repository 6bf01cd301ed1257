//! Finding NaN and infinities.

use crate::Float;

/// Elements that are tested together before the result is looked at.
const BLOCK: usize = 256;

/// The position of the first NaN or infinity, if there is one: what [`Error::NotFinite`](crate::Error)
/// reports.
///
/// One pass over `x`. Blocks are tested without branches, on the bits of the exponents; only the block that
/// holds the answer is searched.
///
/// ```
/// use kc_core::math::first_non_finite;
/// assert_eq!(first_non_finite(&[1.0f32, f32::INFINITY, f32::NAN]), Some(1));
/// assert_eq!(first_non_finite(&[1.0f64, -0.0, f64::MAX]), None);
/// ```
pub fn first_non_finite<T: Float>(x: &[T]) -> Option<usize> {
    // A number is not finite exactly when all bits of its exponent are set.
    let exponent = T::from_f32(f32::INFINITY);
    match size_of::<T>() {
        2 => first_with_bits(bytemuck::cast_slice::<T, u16>(x), bytemuck::cast(exponent)),
        4 => first_with_bits(bytemuck::cast_slice::<T, u32>(x), bytemuck::cast(exponent)),
        _ => first_with_bits(bytemuck::cast_slice::<T, u64>(x), bytemuck::cast(exponent)),
    }
}

fn first_with_bits<B>(bits: &[B], mask: B) -> Option<usize>
where
    B: Copy + PartialEq + std::ops::BitAnd<Output = B>,
{
    let hit = |b: &B| *b & mask == mask;
    for (i, block) in bits.chunks(BLOCK).enumerate() {
        if block.iter().fold(false, |any, b| any | hit(b)) {
            return block.iter().position(hit).map(|at| i * BLOCK + at);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::{bf16, f16};

    fn finds_each_place<T: Float>() {
        for len in [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK + 3] {
            let mut x = vec![T::from_f32(-1.5); len];
            assert_eq!(first_non_finite(&x), None);
            for at in 0..len {
                for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                    x[at] = T::from_f32(bad);
                    x[len - 1] = T::from_f32(f32::NAN);
                    assert_eq!(first_non_finite(&x), Some(at));
                    x[at] = T::from_f32(0.0);
                    x[len - 1] = T::from_f32(0.0);
                }
            }
        }
    }

    #[test]
    fn every_place_of_every_type_is_found() {
        finds_each_place::<f16>();
        finds_each_place::<bf16>();
        finds_each_place::<f32>();
        finds_each_place::<f64>();
    }

    #[test]
    fn the_largest_numbers_are_finite() {
        assert_eq!(first_non_finite(&[f32::MAX, f32::MIN, f32::MIN_POSITIVE, f32::from_bits(1)]), None);
        assert_eq!(first_non_finite(&[f16::MAX, f16::MIN]), None);
        assert_eq!(first_non_finite(&[bf16::MAX, bf16::MIN]), None);
    }
}
