//! Tiles of floating-point products and the two loops around them.

#![expect(
    unsafe_code,
    reason = "calls register tiles on checked lengths and writes through a view's pointer"
)]

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod portable;
#[cfg(target_arch = "x86_64")]
mod tile;

#[cfg(target_arch = "x86_64")]
use kc_core::Level;
use kc_core::{Float, Isa, TensorViewMut};

/// A type in which products are summed: f32 or f64.
pub trait Real:
    Float + std::ops::Add<Output = Self> + std::ops::Mul<Output = Self> + std::ops::AddAssign
{
    /// 1.
    const ONE: Self;
    /// Converts from an element of the same or a narrower type.
    fn widen<E: Float>(x: E) -> Self;
    /// `self * a + b` with one rounding.
    fn fused(self, a: Self, b: Self) -> Self;
    #[doc(hidden)]
    fn kernel(isa: Isa) -> Kernel<Self>;
}

/// The tile of a level.
#[doc(hidden)]
#[derive(Debug, Clone, Copy)]
pub struct Kernel<T> {
    /// Rows of the tile.
    pub(crate) mr: usize,
    /// Columns of the tile.
    pub(crate) nr: usize,
    /// `c[i * stride + j] = alpha * sum_k a[k * mr + i] * b[k * nr + j]`, added to what is there if `add`.
    ///
    /// Safety: `a` and `b` hold `k * mr` and `k * nr` elements, the tile at `c` belongs to the caller, and the
    /// processor has the level for which the kernel was asked.
    run: unsafe fn(k: usize, a: *const T, b: *const T, c: *mut T, stride: isize, alpha: T, add: bool),
}

/// Most elements of a tile, over all levels.
const MAX_TILE: usize = 14 * 32;

macro_rules! real {
    ($t:ident, $convert:ident, $avx2:ident, $avx512:ident, $nr:literal) => {
        impl Real for $t {
            const ONE: Self = 1.0;
            #[inline(always)]
            fn widen<E: Float>(x: E) -> Self {
                x.$convert()
            }
            #[inline(always)]
            fn fused(self, a: Self, b: Self) -> Self {
                self.mul_add(a, b)
            }
            fn kernel(isa: Isa) -> Kernel<Self> {
                match isa.level() {
                    #[cfg(target_arch = "x86_64")]
                    Level::Avx2 => Kernel { mr: 6, nr: avx2::$t::NR, run: avx2::$t::tile },
                    #[cfg(target_arch = "x86_64")]
                    level if level > Level::Avx2 => {
                        Kernel { mr: 14, nr: avx512::$t::NR, run: avx512::$t::tile }
                    }
                    _ => Kernel { mr: 4, nr: $nr, run: portable::tile::<$t, 4, $nr> },
                }
            }
        }
    };
}

real!(f32, to_f32, f32, f32, 8);
real!(f64, to_f64, f64, f64, 4);

/// `out (+)= alpha * a * b` for a packed block of rows and a packed block of columns, both of depth `k`.
///
/// `a` holds panels `[k][mr]`, `b` panels `[k][nr]`. The columns of `out` are adjacent.
pub(crate) fn block<T: Real>(
    kernel: Kernel<T>,
    k: usize,
    a: &[T],
    b: &[T],
    out: &mut TensorViewMut<'_, T, 2>,
    alpha: T,
    add: bool,
) {
    let ([m, n], [stride, column]) = (out.shape(), out.strides());
    let Kernel { mr, nr, run } = kernel;
    assert!(column == 1 || n <= 1, "columns are adjacent");
    assert!(a.len() >= m.div_ceil(mr) * mr * k && b.len() >= n.div_ceil(nr) * nr * k, "panels are complete");
    let c = out.as_mut_ptr();
    let mut edge = [T::default(); MAX_TILE];
    for j in (0..n).step_by(nr) {
        let columns = nr.min(n - j);
        for i in (0..m).step_by(mr) {
            let rows = mr.min(m - i);
            // SAFETY: panels i / mr and j / nr lie inside of a and b, as asserted; the kernel was chosen for a
            // proven level. A full tile lies inside of out, whose columns are adjacent; an edge goes through a
            // tile of our own, and then only elements of out are touched.
            unsafe {
                let (a, b) = (a.as_ptr().add(i * k), b.as_ptr().add(j * k));
                let c = c.offset(i as isize * stride + j as isize);
                if rows == mr && columns == nr {
                    run(k, a, b, c, stride, alpha, add);
                    continue;
                }
                run(k, a, b, edge.as_mut_ptr(), nr as isize, alpha, false);
                for r in 0..rows {
                    for (x, &value) in edge[r * nr..][..columns].iter().enumerate() {
                        let to = &mut *c.offset(r as isize * stride + x as isize);
                        *to = if add { *to + value } else { value };
                    }
                }
            }
        }
    }
}
