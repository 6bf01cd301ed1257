//! Element types.

use std::fmt;

use half::{bf16, f16};
use num_complex::Complex;

/// The type of a tensor's elements, as known at run time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the names say it")]
pub enum DType {
    Bool,
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    U64,
    I64,
    F16,
    BF16,
    F32,
    F64,
    C64,
    C128,
}

impl DType {
    /// Bytes of one element.
    pub const fn size(self) -> usize {
        match self {
            DType::Bool | DType::U8 | DType::I8 => 1,
            DType::U16 | DType::I16 | DType::F16 | DType::BF16 => 2,
            DType::U32 | DType::I32 | DType::F32 => 4,
            DType::U64 | DType::I64 | DType::F64 | DType::C64 => 8,
            DType::C128 => 16,
        }
    }

    /// The name that NumPy users know (`bf16` is `bfloat16`).
    pub const fn name(self) -> &'static str {
        match self {
            DType::Bool => "bool",
            DType::U8 => "uint8",
            DType::I8 => "int8",
            DType::U16 => "uint16",
            DType::I16 => "int16",
            DType::U32 => "uint32",
            DType::I32 => "int32",
            DType::U64 => "uint64",
            DType::I64 => "int64",
            DType::F16 => "float16",
            DType::BF16 => "bfloat16",
            DType::F32 => "float32",
            DType::F64 => "float64",
            DType::C64 => "complex64",
            DType::C128 => "complex128",
        }
    }

    /// All types.
    pub const ALL: [DType; 15] = [
        DType::Bool,
        DType::U8,
        DType::I8,
        DType::U16,
        DType::I16,
        DType::U32,
        DType::I32,
        DType::U64,
        DType::I64,
        DType::F16,
        DType::BF16,
        DType::F32,
        DType::F64,
        DType::C64,
        DType::C128,
    ];

    /// The type of that [`name`](Self::name).
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|dtype| dtype.name() == name)
    }

    /// True for f16, bf16, f32 and f64.
    pub const fn is_float(self) -> bool {
        matches!(self, DType::F16 | DType::BF16 | DType::F32 | DType::F64)
    }

    /// True for signed and unsigned integers (not bool).
    pub const fn is_integer(self) -> bool {
        matches!(
            self,
            DType::U8
                | DType::I8
                | DType::U16
                | DType::I16
                | DType::U32
                | DType::I32
                | DType::U64
                | DType::I64
        )
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

mod sealed {
    pub trait Sealed {}
}

/// A type that a [`Tensor`](crate::Tensor) can hold. Sealed.
pub trait Element:
    sealed::Sealed + bytemuck::Pod + PartialEq + fmt::Debug + Default + Send + Sync + 'static
{
    /// The run-time name of the type.
    const DTYPE: DType;
}

/// A real floating-point element: f16, bf16, f32 or f64. Sealed through [`Element`].
pub trait Float: Element + PartialOrd {
    /// Widens; exact for every type.
    fn to_f64(self) -> f64;
    /// Widens or rounds to nearest even.
    fn to_f32(self) -> f32;
    /// Rounds to nearest even.
    fn from_f64(x: f64) -> Self;
    /// Rounds to nearest even.
    fn from_f32(x: f32) -> Self;
}

macro_rules! elements {
    ($($t:ty => $d:ident),* $(,)?) => {$(
        impl sealed::Sealed for $t {}
        impl Element for $t {
            const DTYPE: DType = DType::$d;
        }
    )*};
}

elements! {
    u8 => U8, i8 => I8, u16 => U16, i16 => I16, u32 => U32, i32 => I32, u64 => U64, i64 => I64,
    f16 => F16, bf16 => BF16, f32 => F32, f64 => F64, Complex<f32> => C64, Complex<f64> => C128,
}

/// `x` as f32, with the last bit set if anything was lost: rounding that to a shorter type is as good as rounding
/// `x`. (The conversions from f64 of the crate half drop the low 32 bits and so take values just above a tie for
/// ties.)
#[inline(always)]
fn round_to_odd(x: f64) -> f32 {
    let near = x as f32;
    let back = f64::from(near);
    if back == x || !near.is_finite() {
        return near;
    }
    let toward_zero = near.to_bits() - u32::from(back.abs() > x.abs());
    f32::from_bits(toward_zero | 1)
}

macro_rules! half_floats {
    ($($t:ty),*) => {$(
        impl Float for $t {
            #[inline(always)]
            fn to_f64(self) -> f64 {
                self.to_f64()
            }
            #[inline(always)]
            fn to_f32(self) -> f32 {
                self.to_f32()
            }
            #[inline(always)]
            fn from_f64(x: f64) -> Self {
                <$t>::from_f32(round_to_odd(x))
            }
            #[inline(always)]
            fn from_f32(x: f32) -> Self {
                <$t>::from_f32(x)
            }
        }
    )*};
}

half_floats!(f16, bf16);

macro_rules! native_floats {
    ($($t:ty),*) => {$(
        impl Float for $t {
            #[inline(always)]
            fn to_f64(self) -> f64 {
                self as f64
            }
            #[inline(always)]
            fn to_f32(self) -> f32 {
                self as f32
            }
            #[inline(always)]
            fn from_f64(x: f64) -> Self {
                x as $t
            }
            #[inline(always)]
            fn from_f32(x: f32) -> Self {
                x as $t
            }
        }
    )*};
}

native_floats!(f32, f64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_back_to_types() {
        for (i, dtype) in DType::ALL.into_iter().enumerate() {
            assert_eq!(DType::from_name(dtype.name()), Some(dtype));
            assert_eq!(DType::ALL.iter().position(|d| *d == dtype), Some(i), "each type once");
        }
        assert_eq!(DType::from_name("float8"), None);
    }

    #[test]
    fn f64_rounds_once() {
        let just_above_a_tie = 21.0625 * (1.0 + f64::EPSILON);
        assert_eq!(<bf16 as Float>::from_f64(21.0625), bf16::from_f32(21.0));
        assert_eq!(<bf16 as Float>::from_f64(just_above_a_tie), bf16::from_f32(21.125));
        assert_eq!(<bf16 as Float>::from_f64(-just_above_a_tie), bf16::from_f32(-21.125));
        let tie = 1.0 + 2f64.powi(-11);
        assert_eq!(<f16 as Float>::from_f64(tie), f16::ONE);
        assert!(<f16 as Float>::from_f64(tie * (1.0 + f64::EPSILON)) > f16::ONE);
        assert!(<f16 as Float>::from_f64(f64::NAN).is_nan());
        assert_eq!(<f16 as Float>::from_f64(1e300), f16::INFINITY);
        assert_eq!(<bf16 as Float>::from_f64(-1e-300).to_bits(), 0x8000);
        assert_eq!(<f16 as Float>::from_f64(2f64.powi(-25) * 1.5), f16::from_bits(1));
    }
}
