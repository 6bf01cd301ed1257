//! Arrays as [`Lanes`], for any processor.

use super::Lanes;

macro_rules! arrays {
    ($t:ty, $l:literal) => {
        impl Lanes<$t, $l> for [$t; $l] {
            #[inline(always)]
            fn load(from: &[$t; $l]) -> Self {
                *from
            }
            #[inline(always)]
            fn store(self, to: &mut [$t; $l]) {
                *to = self;
            }
            #[inline(always)]
            fn splat(x: $t) -> Self {
                [x; $l]
            }
            #[inline(always)]
            fn add(mut self, other: Self) -> Self {
                for l in 0..$l {
                    self[l] += other[l];
                }
                self
            }
            #[inline(always)]
            fn sub(mut self, other: Self) -> Self {
                for l in 0..$l {
                    self[l] -= other[l];
                }
                self
            }
            #[inline(always)]
            fn mul(mut self, other: Self) -> Self {
                for l in 0..$l {
                    self[l] *= other[l];
                }
                self
            }
            #[inline(always)]
            fn fma(self, by: Self, plus: Self) -> Self {
                self.mul(by).add(plus)
            }
            #[inline(always)]
            fn fnma(self, by: Self, from: Self) -> Self {
                from.sub(self.mul(by))
            }
            #[inline(always)]
            fn swap(self, step: usize) -> Self {
                let mut out = self;
                for l in 0..$l {
                    out[l] = self[l ^ step];
                }
                out
            }
            #[inline(always)]
            fn split(from: &[[$t; $l]; 2]) -> [Self; 2] {
                let (mut re, mut im) = ([0.0; $l], [0.0; $l]);
                let flat = from.as_flattened();
                for l in 0..$l {
                    (re[l], im[l]) = (flat[2 * l], flat[2 * l + 1]);
                }
                [re, im]
            }
            #[inline(always)]
            fn join([re, im]: [Self; 2], to: &mut [[$t; $l]; 2]) {
                let flat = to.as_flattened_mut();
                for l in 0..$l {
                    (flat[2 * l], flat[2 * l + 1]) = (re[l], im[l]);
                }
            }
        }
    };
}

arrays!(f64, 4);
arrays!(f32, 8);
