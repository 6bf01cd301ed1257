//! The passes, written once for all vectors.

use std::sync::OnceLock;

use kc_core::{Complex, Float, Isa};

use super::roots::{FINE, Roots, root_of_unity};
use super::{Kernels, Layout, Way};
use crate::lanes::Lanes;
use crate::rows;

/// Complex numbers, a vector of real and one of imaginary parts.
#[derive(Clone, Copy)]
struct Z<V> {
    re: V,
    im: V,
}

/// Real parts, then imaginary parts: or complex numbers one after the other.
pub(super) type Unit<T, const L: usize> = [[T; L]; 2];

impl<V> Z<V> {
    #[inline(always)]
    fn load<T, const L: usize>(from: &Unit<T, L>, layout: Layout) -> Self
    where
        V: Lanes<T, L>,
    {
        let [re, im] = match layout {
            Layout::Complex => V::split(from),
            Layout::Parts => [V::load(&from[0]), V::load(&from[1])],
        };
        Self { re, im }
    }

    #[inline(always)]
    fn store<T, const L: usize>(self, to: &mut Unit<T, L>, layout: Layout)
    where
        V: Lanes<T, L>,
    {
        match layout {
            Layout::Complex => V::join([self.re, self.im], to),
            Layout::Parts => {
                self.re.store(&mut to[0]);
                self.im.store(&mut to[1]);
            }
        }
    }

    #[inline(always)]
    fn splat<T: Copy, const L: usize>([re, im]: [T; 2]) -> Self
    where
        V: Lanes<T, L>,
    {
        Self { re: V::splat(re), im: V::splat(im) }
    }

    #[inline(always)]
    fn add<T, const L: usize>(self, other: Self) -> Self
    where
        V: Lanes<T, L>,
    {
        Self { re: self.re.add(other.re), im: self.im.add(other.im) }
    }

    #[inline(always)]
    fn sub<T, const L: usize>(self, other: Self) -> Self
    where
        V: Lanes<T, L>,
    {
        Self { re: self.re.sub(other.re), im: self.im.sub(other.im) }
    }

    /// `self + i other`.
    #[inline(always)]
    fn add_i<T, const L: usize>(self, other: Self) -> Self
    where
        V: Lanes<T, L>,
    {
        Self { re: self.re.sub(other.im), im: self.im.add(other.re) }
    }

    /// `self - i other`.
    #[inline(always)]
    fn sub_i<T, const L: usize>(self, other: Self) -> Self
    where
        V: Lanes<T, L>,
    {
        Self { re: self.re.add(other.im), im: self.im.sub(other.re) }
    }

    #[inline(always)]
    fn mul<T, const L: usize>(self, w: Self) -> Self
    where
        V: Lanes<T, L>,
    {
        Self { re: self.im.fnma(w.im, self.re.mul(w.re)), im: self.im.fma(w.re, self.re.mul(w.im)) }
    }

    /// `self` times the conjugate of `w`.
    #[inline(always)]
    fn mul_conj<T, const L: usize>(self, w: Self) -> Self
    where
        V: Lanes<T, L>,
    {
        Self { re: self.im.fma(w.im, self.re.mul(w.re)), im: self.re.fnma(w.im, self.im.mul(w.re)) }
    }

    #[inline(always)]
    fn scale<T, const L: usize>(self, by: V) -> Self
    where
        V: Lanes<T, L>,
    {
        Self { re: self.re.mul(by), im: self.im.mul(by) }
    }
}

/// Two stages of four numbers; `w` holds the powers 1, 2, 3 of the root.
#[inline(always)]
fn four<T, V: Lanes<T, L>, const L: usize>(way: Way, [a, b, c, d]: [Z<V>; 4], w: [Z<V>; 3]) -> [Z<V>; 4] {
    match way {
        Way::Forward => {
            let (b, c, d) = (b.mul(w[1]), c.mul(w[0]), d.mul(w[2]));
            let (y0, y1, s, t) = (a.add(b), a.sub(b), c.add(d), c.sub(d));
            [y0.add(s), y1.sub_i(t), y0.sub(s), y1.add_i(t)]
        }
        Way::Inverse => {
            let (y0, s, y1, t) = (a.add(c), a.sub(c), b.add(d), b.sub(d));
            let (b, c, d) = (y0.sub(y1), s.add_i(t), s.sub_i(t));
            [y0.add(y1), b.mul_conj(w[1]), c.mul_conj(w[0]), d.mul_conj(w[2])]
        }
    }
}

/// One stage of two numbers.
#[inline(always)]
fn two<T, V: Lanes<T, L>, const L: usize>(way: Way, [a, b]: [Z<V>; 2], w: Z<V>) -> [Z<V>; 2] {
    match way {
        Way::Forward => {
            let b = b.mul(w);
            [a.add(b), a.sub(b)]
        }
        Way::Inverse => [a.add(b), a.sub(b).mul_conj(w)],
    }
}

/// The stages inside of a vector: signs of the lanes, and roots for the lanes whose bit is set.
#[derive(Clone, Copy)]
struct Within<V> {
    signs: [V; 3],
    roots: [Z<V>; 3],
}

impl<V> Within<V> {
    #[inline(always)]
    fn new<T: Float, const L: usize>() -> Self
    where
        V: Lanes<T, L>,
    {
        // Eighths of a turn.
        let h = T::from_f64(0.5f64.sqrt());
        let (zero, one, less) = (T::default(), T::from_f64(1.0), T::from_f64(-1.0));
        let eighths = [[one, zero], [h, T::from_f64(-0.5f64.sqrt())], [zero, less]];
        let last = [T::from_f64(-0.5f64.sqrt()), T::from_f64(-0.5f64.sqrt())];
        let unit = V::splat(one);
        let mut all = Self { signs: [unit; 3], roots: [Z { re: unit, im: V::splat(zero) }; 3] };
        for bit in 0..3 {
            let step = 1 << bit;
            let (mut sign, mut re, mut im) = ([one; L], [one; L], [zero; L]);
            for l in 0..L {
                if l & step != 0 {
                    sign[l] = less;
                    let eighth = (l % step) * (4 / step);
                    [re[l], im[l]] = if eighth == 3 { last } else { eighths[eighth] };
                }
            }
            all.signs[bit] = V::load(&sign);
            all.roots[bit] = Z { re: V::load(&re), im: V::load(&im) };
        }
        all
    }

    #[inline(always)]
    fn stage<T, const L: usize>(&self, v: Z<V>, bit: usize) -> Z<V>
    where
        V: Lanes<T, L>,
    {
        let (sign, step) = (self.signs[bit], 1 << bit);
        Z { re: v.re.fma(sign, v.re.swap(step)), im: v.im.fma(sign, v.im.swap(step)) }
    }

    #[inline(always)]
    fn apply<T, const L: usize>(&self, way: Way, mut v: Z<V>) -> Z<V>
    where
        V: Lanes<T, L>,
    {
        match way {
            Way::Forward => {
                v = self.stage(v, 0);
                v = self.stage(v.mul(self.roots[1]), 1);
                if L > 4 { self.stage(v.mul(self.roots[2]), 2) } else { v }
            }
            Way::Inverse => {
                if L > 4 {
                    v = self.stage(v, 2).mul_conj(self.roots[2]);
                }
                v = self.stage(v, 1).mul_conj(self.roots[1]);
                self.stage(v, 0)
            }
        }
    }
}

/// The stages inside of vectors and across `FAN` neighbours; `w` are the roots for rows of one unit.
#[inline(always)]
fn first<T: Float, V: Lanes<T, L>, const L: usize, const FAN: usize>(
    way: Way,
    x: &mut [Unit<T, L>],
    [from, to]: [Layout; 2],
    w: &[Unit<T, L>; 3],
    scale: T,
) {
    let within = Within::<V>::new();
    let w = [
        Z::<V>::load(&w[0], Layout::Parts),
        Z::<V>::load(&w[1], Layout::Parts),
        Z::<V>::load(&w[2], Layout::Parts),
    ];
    let scale = V::splat(scale);
    for chunk in x.as_chunks_mut::<FAN>().0 {
        let mut v = [w[0]; FAN];
        for (v, from_unit) in v.iter_mut().zip(chunk.iter()) {
            *v = Z::load(from_unit, from).scale(scale);
            if way == Way::Forward {
                *v = within.apply(way, *v);
            }
        }
        match v.as_mut_slice() {
            [a, b] => [*a, *b] = two(way, [*a, *b], w[1]),
            [a, b, c, d] => [*a, *b, *c, *d] = four(way, [*a, *b, *c, *d], w),
            _ => {}
        }
        for (mut v, unit) in v.into_iter().zip(chunk) {
            if way == Way::Inverse {
                v = within.apply(way, v);
            }
            v.store(unit, to);
        }
    }
}

// A function that is always inlined instead of a closure: a closure is compiled without the instructions of its
// caller unless the compiler chooses to inline it.
#[inline(always)]
fn smallest<T: Float, V: Lanes<T, L>, const L: usize>(
    way: Way,
    x: &mut [Unit<T, L>],
    fan: usize,
    layout: [Layout; 2],
    w: &[Unit<T, L>; 3],
    scale: T,
) {
    match fan {
        1 => first::<T, V, L, 1>(way, x, layout, w, scale),
        2 => first::<T, V, L, 2>(way, x, layout, w, scale),
        _ => first::<T, V, L, 4>(way, x, layout, w, scale),
    }
}

/// Two stages across rows whose roots are `fine`, times `coarse` if there is one.
#[inline(always)]
fn columns<T: Copy, V: Lanes<T, L>, const L: usize>(
    way: Way,
    [a, b, c, d]: [&mut [Unit<T, L>]; 4],
    fine: &[[Unit<T, L>; 3]],
    coarse: Option<&[[T; 2]; 3]>,
    [from, to]: [Layout; 2],
) {
    let (product, [x, y, z]) = match coarse {
        Some(&coarse) => (true, coarse),
        None => (false, [[fine[0][0][0][0]; 2]; 3]),
    };
    let coarse = [Z::<V>::splat(x), Z::splat(y), Z::splat(z)];
    for ((((a, b), c), d), w) in a.iter_mut().zip(b).zip(c).zip(d).zip(fine) {
        let mut w = [
            Z::<V>::load(&w[0], Layout::Parts),
            Z::load(&w[1], Layout::Parts),
            Z::load(&w[2], Layout::Parts),
        ];
        if product {
            w = [w[0].mul(coarse[0]), w[1].mul(coarse[1]), w[2].mul(coarse[2])];
        }
        let v = [Z::load(a, from), Z::load(b, from), Z::load(c, from), Z::load(d, from)];
        let [s, t, u, v] = four(way, v, w);
        s.store(a, to);
        t.store(b, to);
        u.store(c, to);
        v.store(d, to);
    }
}

/// [`Kernels::pass`] for a kind of vector, way and layout.
#[inline(always)]
fn pass_rows<T: Copy, V: Lanes<T, L>, const L: usize>(
    way: Way,
    mut rows: [&mut [Unit<T, L>]; 4],
    roots: &Roots<T, L>,
    at: usize,
    layout: [Layout; 2],
) {
    if roots.coarse.is_empty() {
        return columns::<T, V, L>(way, rows, &roots.fine, None, layout);
    }
    for coarse in &roots.coarse[at / FINE..] {
        if rows[0].is_empty() {
            return;
        }
        let run = FINE.min(rows[0].len());
        let [now, later] = rows::halves(rows, run);
        columns::<T, V, L>(way, now, &roots.fine, Some(coarse), layout);
        rows = later;
    }
}

/// Two stages across rows of `h` units, of every block of `4 h`.
#[inline(always)]
fn blocks<T: Copy, V: Lanes<T, L>, const L: usize>(
    way: Way,
    x: &mut [Unit<T, L>],
    roots: &Roots<T, L>,
    h: usize,
    layout: [Layout; 2],
) {
    for block in x.chunks_exact_mut(4 * h) {
        pass_rows::<T, V, L>(way, rows::split(block), roots, 0, layout);
    }
}

/// [`Kernels::leaf`] for a kind of vector; `roots` gives the tables for rows of so many units.
#[inline(always)]
pub(super) fn leaf<T: Float, V: Lanes<T, L>, const L: usize>(
    way: Way,
    x: &mut [Unit<T, L>],
    [from, to]: [Layout; 2],
    scale: T,
    roots: fn(usize) -> &'static Roots<T, L>,
) {
    let bits = x.len().trailing_zeros();
    let fan = if bits > 0 && bits.is_multiple_of(2) { 4 } else { 1 << (bits % 2) };
    let w = &roots(1).fine[0];
    let only = fan == x.len();
    let mid = Layout::Parts;
    match way {
        Way::Forward => {
            smallest::<T, V, L>(way, x, fan, [from, if only { to } else { mid }], w, scale);
            let mut h = fan;
            while 4 * h < x.len() {
                blocks::<T, V, L>(way, x, roots(h), h, [mid, mid]);
                h *= 4;
            }
            if h < x.len() {
                blocks::<T, V, L>(way, x, roots(h), h, [mid, to]);
            }
        }
        Way::Inverse => {
            let mut h = x.len() / 4;
            if !only {
                blocks::<T, V, L>(way, x, roots(h), h, [from, mid]);
                while h > fan {
                    h /= 4;
                    blocks::<T, V, L>(way, x, roots(h), h, [mid, mid]);
                }
            }
            smallest::<T, V, L>(way, x, fan, [if only { from } else { mid }, to], w, scale);
        }
    }
}

/// [`Kernels::pass`] for a kind of vector.
#[inline(always)]
pub(super) fn pass<T: Float, V: Lanes<T, L>, const L: usize>(
    way: Way,
    rows: [&mut [Unit<T, L>]; 4],
    at: usize,
    layout: [Layout; 2],
    roots: &Roots<T, L>,
) {
    pass_rows::<T, V, L>(way, rows, roots, at, layout);
}

/// A row shorter than a vector.
pub(super) fn short<T: Float>(way: Way, row: &mut [Complex<T>], scale: f64) {
    let n = row.len();
    let mut x = [Complex::new(0.0, 0.0); 8];
    x.iter_mut().zip(&*row).for_each(|(x, z)| *x = Complex::new(z.re.to_f64(), z.im.to_f64()));
    let bits = n.trailing_zeros();
    for stage in 0..bits {
        let half = 1 << if way == Way::Forward { stage } else { bits - 1 - stage };
        for i in (0..n).filter(|i| i & half == 0) {
            let w = root_of_unity(i % half, 2 * half);
            let (a, b) = (x[i], x[i + half]);
            (x[i], x[i + half]) = match way {
                Way::Forward => (a + b * w, a - b * w),
                Way::Inverse => (a + b, (a - b) * w.conj()),
            };
        }
    }
    for (z, x) in row.iter_mut().zip(x) {
        *z = Complex::new(T::from_f64(x.re * scale), T::from_f64(x.im * scale));
    }
}

macro_rules! kernels {
    ($t:ty, $l:literal, $register:ident) => {
        impl Kernels for $t {
            type Unit = Unit<$t, $l>;
            const LANES: usize = $l;

            fn units(x: &mut [Complex<$t>]) -> &mut [Self::Unit] {
                kc_core::bytemuck::cast_slice_mut(x)
            }

            fn root(k: usize, n: usize) -> Complex<f64> {
                $register::roots(n / 4 / $l).root(k)
            }

            fn leaf(isa: Isa, way: Way, x: &mut [Self::Unit], layout: [Layout; 2], scale: $t) {
                #[cfg(target_arch = "x86_64")]
                if isa.level() >= kc_core::Level::Avx2 {
                    return super::x86::$register::leaf(isa, way, x, layout, scale, $register::roots);
                }
                let _ = isa;
                leaf::<$t, [$t; $l], $l>(way, x, layout, scale, $register::roots);
            }

            fn pass(
                isa: Isa,
                way: Way,
                rows: [&mut [Self::Unit]; 4],
                h: usize,
                at: usize,
                layout: [Layout; 2],
            ) {
                let roots = $register::roots(h);
                #[cfg(target_arch = "x86_64")]
                if isa.level() >= kc_core::Level::Avx2 {
                    return super::x86::$register::pass(isa, way, rows, at, layout, roots);
                }
                let _ = isa;
                pass::<$t, [$t; $l], $l>(way, rows, at, layout, roots);
            }
        }

        mod $register {
            use super::*;

            /// The tables for rows of `h` units, a power of two.
            pub(super) fn roots(h: usize) -> &'static Roots<$t, $l> {
                static TABLES: [OnceLock<Roots<$t, $l>>; usize::BITS as usize] =
                    [const { OnceLock::new() }; usize::BITS as usize];
                TABLES[h.trailing_zeros() as usize].get_or_init(|| Roots::new(h * $l))
            }
        }
    };
}

kernels!(f64, 4, f64x4);
kernels!(f32, 8, f32x8);
