//! From the file's order of elements and bytes to row-major and native.

use kc_core::{AlignedBuf, AnyTensor, Bytes, DType, Error, Result};

/// A tensor of row-major data: in place if that is possible, else over one copy. `start` is where the data
/// begin in the file `source`.
pub(crate) fn native(
    dtype: DType,
    shape: Vec<usize>,
    data: Bytes,
    swapped: bool,
    source: &str,
    start: u64,
) -> Result<AnyTensor> {
    check_booleans(dtype, &data, source, start)?;
    if !swapped && is_aligned(&data, dtype) {
        return AnyTensor::new(dtype, shape, data);
    }
    let mut copy = AlignedBuf::<u8>::copy_of(&data)?;
    if swapped {
        swap_bytes(&mut copy, dtype);
    }
    AnyTensor::new(dtype, shape, copy.into())
}

/// Other bytes than 0 and 1 are no booleans, and would surprise whoever uses them as numbers.
pub(crate) fn check_booleans(dtype: DType, data: &[u8], source: &str, start: u64) -> Result<()> {
    if dtype != DType::Bool {
        return Ok(());
    }
    match data.iter().position(|&b| b > 1) {
        None => Ok(()),
        Some(at) => {
            let message = format!("expected a boolean (0 or 1), got {}", data[at]);
            Err(Error::parse_byte(source, start + at as u64, message))
        }
    }
}

/// True if the data may be viewed as their type where they are.
fn is_aligned(data: &Bytes, dtype: DType) -> bool {
    let component = component(dtype);
    data.as_ptr().addr().is_multiple_of(component)
}

/// Bytes of the unit in which a machine stores the type: half of a complex number, else all of it.
fn component(dtype: DType) -> usize {
    match dtype {
        DType::C64 | DType::C128 => dtype.size() / 2,
        _ => dtype.size(),
    }
}

/// Reverses the bytes of each real number.
pub(crate) fn swap_bytes(data: &mut [u8], dtype: DType) {
    fn swap<const S: usize>(data: &mut [u8]) {
        data.as_chunks_mut::<S>().0.iter_mut().for_each(|x| x.reverse());
    }
    match component(dtype) {
        2 => swap::<2>(data),
        4 => swap::<4>(data),
        8 => swap::<8>(data),
        _ => {}
    }
}

/// True if Fortran order places at least one element elsewhere than C order does.
pub(crate) fn fortran_differs(shape: &[usize]) -> bool {
    !shape.contains(&0) && shape.iter().filter(|&&d| d > 1).count() > 1
}

/// Copies elements of `size` bytes from Fortran order to C order. No axis is empty, and both slices hold
/// the whole shape.
pub(crate) fn fortran_to_c(from: &[u8], to: &mut [u8], shape: &[usize], size: usize) {
    let shape: Vec<usize> = shape.iter().copied().filter(|&d| d > 1).collect();
    match size {
        1 => reorder::<1>(from, to, &shape),
        2 => reorder::<2>(from, to, &shape),
        4 => reorder::<4>(from, to, &shape),
        8 => reorder::<8>(from, to, &shape),
        16 => reorder::<16>(from, to, &shape),
        _ => {}
    }
}

/// Elements on a side of the squares that are moved at once: both sides stay in the first-level cache.
const TILE: usize = 32;

/// The first axis is contiguous in `from` and the last in `to`. For each index of the axes between, the two
/// form a matrix to transpose, square by square.
fn reorder<const S: usize>(from: &[u8], to: &mut [u8], shape: &[usize]) {
    let (from, to) = (from.as_chunks::<S>().0, to.as_chunks_mut::<S>().0);
    let [first, middle @ .., last] = shape else { return };
    let (first, last) = (*first, *last);
    let between: usize = middle.iter().product();
    // Strides of the outer two axes where they are not contiguous.
    let (from_last, to_first) = (first * between, between * last);

    let mut index = vec![0usize; middle.len()];
    for _ in 0..between {
        let mut stride = first;
        let mut from_at = 0;
        for (&i, &d) in index.iter().zip(middle) {
            from_at += i * stride;
            stride *= d;
        }
        let to_at = index.iter().zip(middle).fold(0, |at, (&i, &d)| at * d + i) * last;
        for i0 in (0..first).step_by(TILE) {
            for j0 in (0..last).step_by(TILE) {
                for i in i0..first.min(i0 + TILE) {
                    for j in j0..last.min(j0 + TILE) {
                        to[to_at + i * to_first + j] = from[from_at + i + j * from_last];
                    }
                }
            }
        }
        for (i, &d) in index.iter_mut().zip(middle).rev() {
            *i += 1;
            if *i < d {
                break;
            }
            *i = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fortran_order_is_undone_at_every_rank() {
        for shape in [vec![3, 5], vec![1, 4, 2], vec![2, 3, 4], vec![40, 2, 70], vec![2, 3, 2, 5]] {
            let len: usize = shape.iter().product();
            // The element at each C position holds its own Fortran position.
            let from: Vec<u8> = (0..len as u32).flat_map(u32::to_le_bytes).collect();
            let mut to = vec![0; from.len()];
            fortran_to_c(&from, &mut to, &shape, 4);
            for (position, value) in to.as_chunks::<4>().0.iter().enumerate() {
                let (mut rest, mut stride, mut want) = (position, len, 0);
                for &d in shape.iter().rev() {
                    stride /= d;
                    want += rest % d * stride;
                    rest /= d;
                }
                assert_eq!(u32::from_le_bytes(*value) as usize, want, "{shape:?} at {position}");
            }
        }
    }
}
