//! Groups of columns that share a scale, and the types in which scales are stored.

use kc_core::{Error, Result, bf16, f16};

/// Which columns of a row share a scale.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Group {
    /// Runs of so many consecutive columns; the last may be shorter. At least 1.
    Size(usize),
    /// The whole row.
    Row,
}

impl Group {
    /// The number of columns of a group in rows of `k` columns, at least 1 and at most `k` (if there are any).
    ///
    /// # Errors
    /// `Argument` for a group of 0 columns.
    pub fn len(self, k: usize) -> Result<usize> {
        match self {
            Group::Size(0) => Err(Error::argument("group", "at least 1 column, or `row`", 0)),
            Group::Size(size) => Ok(size.min(k.max(1))),
            Group::Row => Ok(k.max(1)),
        }
    }
}

impl Default for Group {
    /// 128 columns, as most published checkpoints have.
    fn default() -> Self {
        Group::Size(128)
    }
}

/// The type in which scales are stored. Codes are computed with the rounded scale.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ScaleDtype {
    /// 32 bits: as computed.
    #[default]
    F32,
    /// IEEE half precision: 11 significant bits, at most 65504.
    F16,
    /// bfloat16: 8 significant bits, the range of f32.
    Bf16,
}

impl ScaleDtype {
    /// `scale` rounded to this type, half to even; infinite if it is too large for it.
    pub fn round(self, scale: f32) -> f32 {
        match self {
            ScaleDtype::F32 => scale,
            ScaleDtype::F16 => f16::from_f32(scale).to_f32(),
            ScaleDtype::Bf16 => bf16::from_f32(scale).to_f32(),
        }
    }

    /// Bytes of a stored scale.
    pub fn bytes(self) -> usize {
        match self {
            ScaleDtype::F32 => 4,
            ScaleDtype::F16 | ScaleDtype::Bf16 => 2,
        }
    }

    /// The name that files and the command line use.
    pub fn name(self) -> &'static str {
        match self {
            ScaleDtype::F32 => "f32",
            ScaleDtype::F16 => "f16",
            ScaleDtype::Bf16 => "bf16",
        }
    }

    /// The type of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        [ScaleDtype::F32, ScaleDtype::F16, ScaleDtype::Bf16].into_iter().find(|t| t.name() == name)
    }
}
