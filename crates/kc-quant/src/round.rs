//! Rounding to codes: half to even, true division, symmetric ranges.
//!
//! ```
//! use kc_quant::round::{code, qmax};
//! assert_eq!(qmax(8)?, 127);
//! // Exactly half goes to the even neighbour: 0.5 to 0, 1.5 to 2.
//! assert_eq!([0.5f32, 1.5, 2.5, -0.5, -1.5].map(|x| code(x, 1.0, 127)), [0, 2, 2, 0, -2]);
//! # Ok::<(), kc_core::Error>(())
//! ```

use kc_core::{Error, Result};

/// The largest code of a symmetric quantiser of `bits` bits, `2^(bits-1) - 1`. `bits` is 2 to 8.
pub fn qmax(bits: u8) -> Result<i8> {
    if !(2..=8).contains(&bits) {
        return Err(Error::argument("bits", "2 to 8", bits));
    }
    Ok(((1u16 << (bits - 1)) - 1) as i8)
}

/// `x / step`, rounded half to even and clamped to `±limit`. A step of 0 gives 0.
#[inline]
pub fn code(x: f32, step: f32, limit: i8) -> i8 {
    if step == 0.0 {
        return 0;
    }
    let limit = f32::from(limit);
    (x / step).round_ties_even().clamp(-limit, limit) as i8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits() {
        assert_eq!([2, 3, 4, 8].map(|b| qmax(b).unwrap()), [1, 3, 7, 127]);
        assert!(qmax(1).is_err() && qmax(9).is_err());
    }

    #[test]
    fn codes_clamp_and_zero_steps_give_zero() {
        assert_eq!(code(1e30, 1e-3, 127), 127);
        assert_eq!(code(-1e30, 1e-3, 7), -7);
        assert_eq!(code(3.0, 0.0, 127), 0);
        assert_eq!(code(127.5, 1.0, 127), 127);
    }
}
