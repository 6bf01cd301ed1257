//! Shapes and strides: row-major layout, checked products, broadcasting.

use crate::{Error, Result};

/// The number of elements of `shape`, or an error when it does not fit a `usize`.
pub fn checked_len(arg: &'static str, shape: &[usize]) -> Result<usize> {
    // A zero anywhere makes the product zero whatever the rest is.
    if shape.contains(&0) {
        return Ok(0);
    }
    shape
        .iter()
        .try_fold(1usize, |n, &d| n.checked_mul(d))
        .filter(|&n| n <= isize::MAX as usize)
        .ok_or_else(|| Error::shape(arg, "a shape whose size fits the address space", shape))
}

/// Strides, in elements, of a row-major tensor of this shape.
pub fn row_major<const N: usize>(shape: &[usize; N]) -> [isize; N] {
    let mut strides = [0; N];
    let mut step = 1isize;
    for axis in (0..N).rev() {
        strides[axis] = step;
        step = step.saturating_mul(shape[axis].max(1) as isize);
    }
    strides
}

/// True if `strides` walk `shape` in row-major order without gaps. Axes of length 1 may have any stride.
pub fn is_row_major<const N: usize>(shape: &[usize; N], strides: &[isize; N]) -> bool {
    if shape.contains(&0) {
        return true;
    }
    let mut step = 1isize;
    for axis in (0..N).rev() {
        if shape[axis] != 1 && strides[axis] != step {
            return false;
        }
        step *= shape[axis] as isize;
    }
    true
}

/// The lowest and highest offset, in elements, that a strided view reaches from its first element.
/// `None` if an offset does not fit an `isize`. An empty view reaches `(0, 0)`.
pub fn offset_bounds<const N: usize>(shape: &[usize; N], strides: &[isize; N]) -> Option<(isize, isize)> {
    if shape.contains(&0) {
        return Some((0, 0));
    }
    let (mut low, mut high) = (0isize, 0isize);
    for axis in 0..N {
        let last = isize::try_from(shape[axis] - 1).ok()?;
        let reach = last.checked_mul(strides[axis])?;
        if reach < 0 {
            low = low.checked_add(reach)?;
        } else {
            high = high.checked_add(reach)?;
        }
    }
    Some((low, high))
}

/// The shape to which `a` and `b` broadcast by NumPy's rule, if they do.
pub fn broadcast<const N: usize>(a: &[usize; N], b: &[usize; N]) -> Option<[usize; N]> {
    let mut out = [0; N];
    for axis in 0..N {
        out[axis] = match (a[axis], b[axis]) {
            (x, y) if x == y => x,
            (1, y) => y,
            (x, 1) => x,
            _ => return None,
        };
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_are_checked() {
        assert_eq!(checked_len("x", &[3, 4]), Ok(12));
        assert_eq!(checked_len("x", &[usize::MAX, 0]), Ok(0));
        assert!(checked_len("x", &[usize::MAX, 2]).is_err());
    }

    #[test]
    fn row_major_is_recognised() {
        let strides = row_major(&[2, 3, 4]);
        assert_eq!(strides, [12, 4, 1]);
        assert!(is_row_major(&[2, 3, 4], &strides));
        assert!(is_row_major(&[2, 1, 4], &[4, 77, 1]));
        assert!(!is_row_major(&[3, 2], &[1, 3]));
    }

    #[test]
    fn bounds_follow_signs() {
        assert_eq!(offset_bounds(&[3, 2], &[-4, 1]), Some((-8, 1)));
        assert_eq!(offset_bounds(&[0, 2], &[-4, 1]), Some((0, 0)));
        assert_eq!(offset_bounds(&[3], &[isize::MAX]), None);
    }

    #[test]
    fn broadcasting_follows_numpy() {
        assert_eq!(broadcast(&[3, 1], &[1, 4]), Some([3, 4]));
        assert_eq!(broadcast(&[3, 2], &[1, 4]), None);
    }
}
