//! The passes, written once for all vectors.

use kc_core::{Float, Isa};

use super::Kernels;
use crate::lanes::Lanes;
use crate::rows;

/// Sums and differences of two.
#[inline(always)]
fn two<T, V: Lanes<T, L>, const L: usize>([a, b]: [V; 2]) -> [V; 2] {
    [a.add(b), a.sub(b)]
}

/// Two stages.
#[inline(always)]
fn four<T, V: Lanes<T, L>, const L: usize>([a, b, c, d]: [V; 4]) -> [V; 4] {
    let ([a, b], [c, d]) = (two([a, b]), two([c, d]));
    let ([a, c], [b, d]) = (two([a, c]), two([b, d]));
    [a, b, c, d]
}

/// Three stages.
#[inline(always)]
fn eight<T, V: Lanes<T, L>, const L: usize>([a, b, c, d, e, f, g, h]: [V; 8]) -> [V; 8] {
    let ([a, b, c, d], [e, f, g, h]) = (four([a, b, c, d]), four([e, f, g, h]));
    let ([a, e], [b, f], [c, g], [d, h]) = (two([a, e]), two([b, f]), two([c, g]), two([d, h]));
    [a, b, c, d, e, f, g, h]
}

/// The stages inside of a vector: lane `l` with its bit `step` set becomes (other - own), else (own + other).
#[inline(always)]
fn within<T: Float, V: Lanes<T, L>, const L: usize>(v: V, signs: &[V; 3]) -> V {
    let v = v.fma(signs[0], v.swap(1));
    let v = v.fma(signs[1], v.swap(2));
    if L > 4 { v.fma(signs[2], v.swap(4)) } else { v }
}

#[inline(always)]
fn signs<T: Float, V: Lanes<T, L>, const L: usize>() -> [V; 3] {
    let mut all = [V::splat(T::from_f64(1.0)); 3];
    for (bit, sign) in all.iter_mut().enumerate() {
        let mut lanes = [T::from_f64(1.0); L];
        for (l, lane) in lanes.iter_mut().enumerate() {
            if l >> bit & 1 == 1 {
                *lane = T::from_f64(-1.0);
            }
        }
        *sign = V::load(&lanes);
    }
    all
}

#[inline(always)]
fn store<T, V: Lanes<T, L>, const L: usize>(v: V, scale: Option<V>, to: &mut [T; L]) {
    match scale {
        Some(scale) => v.mul(scale).store(to),
        None => v.store(to),
    }
}

/// Three stages across rows of `h` units, of every block of `8 h`.
#[inline(always)]
fn blocks<T, V: Lanes<T, L>, const L: usize>(x: &mut [[T; L]], h: usize, scale: Option<V>) {
    for block in x.chunks_exact_mut(8 * h) {
        pass_rows(rows::split(block), scale);
    }
}

#[inline(always)]
fn pass_rows<T, V: Lanes<T, L>, const L: usize>(rows: [&mut [[T; L]]; 8], scale: Option<V>) {
    let [a, b, c, d, e, f, g, h] = rows;
    let low = a.iter_mut().zip(b).zip(c).zip(d);
    for ((((a, b), c), d), (((e, f), g), h)) in low.zip(e.iter_mut().zip(f).zip(g).zip(h)) {
        let x =
            [V::load(a), V::load(b), V::load(c), V::load(d), V::load(e), V::load(f), V::load(g), V::load(h)];
        let [s, t, u, v, w, x, y, z] = eight(x);
        store(s, scale, a);
        store(t, scale, b);
        store(u, scale, c);
        store(v, scale, d);
        store(w, scale, e);
        store(x, scale, f);
        store(y, scale, g);
        store(z, scale, h);
    }
}

/// The stages inside of vectors and across `FAN` neighbours.
#[inline(always)]
fn first<T: Float, V: Lanes<T, L>, const L: usize, const FAN: usize>(x: &mut [[T; L]], scale: Option<V>) {
    let signs = signs::<T, V, L>();
    for chunk in x.as_chunks_mut::<FAN>().0 {
        let mut v = [signs[0]; FAN];
        for (v, from) in v.iter_mut().zip(chunk.iter()) {
            *v = within(V::load(from), &signs);
        }
        let wide = v.as_mut_slice();
        match wide {
            [a, b] => [*a, *b] = two([*a, *b]),
            [a, b, c, d] => [*a, *b, *c, *d] = four([*a, *b, *c, *d]),
            [a, b, c, d, e, f, g, h] => {
                [*a, *b, *c, *d, *e, *f, *g, *h] = eight([*a, *b, *c, *d, *e, *f, *g, *h]);
            }
            _ => {}
        }
        for (v, to) in v.into_iter().zip(chunk) {
            store(v, scale, to);
        }
    }
}

/// [`Kernels::leaf`] for a kind of vector.
#[inline(always)]
pub(super) fn leaf<T: Float, V: Lanes<T, L>, const L: usize>(x: &mut [[T; L]], scale: Option<T>) {
    let scale = scale.map(V::splat);
    let bits = x.len().trailing_zeros();
    let fan = if bits > 0 && bits.is_multiple_of(3) { 8 } else { 1 << (bits % 3) };
    let now = if fan == x.len() { scale } else { None };
    match fan {
        1 => first::<T, V, L, 1>(x, now),
        2 => first::<T, V, L, 2>(x, now),
        4 => first::<T, V, L, 4>(x, now),
        _ => first::<T, V, L, 8>(x, now),
    }
    let mut h = fan;
    while 8 * h < x.len() {
        blocks(x, h, None::<V>);
        h *= 8;
    }
    if h < x.len() {
        blocks(x, h, scale);
    }
}

/// [`Kernels::pass`] for a kind of vector.
#[inline(always)]
pub(super) fn pass<T, V: Lanes<T, L>, const L: usize>(rows: [&mut [[T; L]]; 8], scale: Option<T>) {
    match scale {
        Some(scale) => pass_rows(rows, Some(V::splat(scale))),
        None => pass_rows(rows, None::<V>),
    }
}

/// [`Kernels::double`] for a kind of vector.
#[inline(always)]
pub(super) fn double<T: Copy, V: Lanes<T, L>, const L: usize>([a, b]: [&mut [[T; L]]; 2], scale: T) {
    let scale = V::splat(scale);
    for (a, b) in a.iter_mut().zip(b) {
        let [s, d] = two([V::load(a), V::load(b)]);
        s.mul(scale).store(a);
        d.mul(scale).store(b);
    }
}

/// A row shorter than a vector.
pub(super) fn short<T: Float>(row: &mut [T], scale: T) {
    let mut x = [0.0; 8];
    let n = row.len();
    x.iter_mut().zip(&*row).for_each(|(x, v)| *x = v.to_f64());
    // Each sum is rounded to T, as in registers.
    let round = |v: f64| T::from_f64(v).to_f64();
    let mut half = 1;
    while half < n {
        for i in (0..n).filter(|i| i & half == 0) {
            (x[i], x[i + half]) = (round(x[i] + x[i + half]), round(x[i] - x[i + half]));
        }
        half *= 2;
    }
    row.iter_mut().zip(x).for_each(|(v, x)| *v = T::from_f64(x * scale.to_f64()));
}

macro_rules! kernels {
    ($t:ty, $l:literal, $register:ident) => {
        impl Kernels for $t {
            type Vector = [$t; $l];

            fn leaf(isa: Isa, x: &mut [[$t; $l]], scale: Option<$t>) {
                #[cfg(target_arch = "x86_64")]
                if isa.level() >= kc_core::Level::Avx2 {
                    return super::x86::$register::leaf(isa, x, scale);
                }
                let _ = isa;
                leaf::<$t, [$t; $l], $l>(x, scale);
            }

            fn pass(isa: Isa, rows: [&mut [[$t; $l]]; 8], scale: Option<$t>) {
                #[cfg(target_arch = "x86_64")]
                if isa.level() >= kc_core::Level::Avx2 {
                    return super::x86::$register::pass(isa, rows, scale);
                }
                let _ = isa;
                pass::<$t, [$t; $l], $l>(rows, scale);
            }

            fn double(isa: Isa, rows: [&mut [[$t; $l]]; 2], scale: $t) {
                #[cfg(target_arch = "x86_64")]
                if isa.level() >= kc_core::Level::Avx2 {
                    return super::x86::$register::double(isa, rows, scale);
                }
                let _ = isa;
                double::<$t, [$t; $l], $l>(rows, scale);
            }
        }
    };
}

kernels!(f64, 4, f64x4);
kernels!(f32, 8, f32x8);
