//! Types of GGUF tensors.

use kc_core::{DType, Error, Result};

/// How a tensor's elements are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[expect(non_camel_case_types, reason = "the names are those that the format's users know")]
pub enum GgufType {
    /// 32-bit floats.
    F32,
    /// IEEE half precision.
    F16,
    /// bfloat16.
    BF16,
    /// Blocks of 32: `d (q - 8)`, 4 bits.
    Q4_0,
    /// Blocks of 32: `d q + m`, 4 bits.
    Q4_1,
    /// Blocks of 32: `d (q - 16)`, 5 bits.
    Q5_0,
    /// Blocks of 32: `d q + m`, 5 bits.
    Q5_1,
    /// Blocks of 32: `d q`, signed 8 bits.
    Q8_0,
    /// Blocks of 256 in groups of 16: `d sc q - dmin m`, 2 bits.
    Q2_K,
    /// Blocks of 256 in groups of 16: `d (sc - 32) (q - 4)`, 3 bits.
    Q3_K,
    /// Blocks of 256 in groups of 32: `d sc q - dmin m`, 4 bits.
    Q4_K,
    /// Blocks of 256 in groups of 32: `d sc q - dmin m`, 5 bits.
    Q5_K,
    /// Blocks of 256 in groups of 16: `d sc (q - 32)`, 6 bits.
    Q6_K,
    /// A type that is not read, by its number in the file.
    Other(u32),
}

impl GgufType {
    /// All types that are read.
    pub const ALL: [GgufType; 13] = [
        GgufType::F32,
        GgufType::F16,
        GgufType::BF16,
        GgufType::Q4_0,
        GgufType::Q4_1,
        GgufType::Q5_0,
        GgufType::Q5_1,
        GgufType::Q8_0,
        GgufType::Q2_K,
        GgufType::Q3_K,
        GgufType::Q4_K,
        GgufType::Q5_K,
        GgufType::Q6_K,
    ];

    /// The number that files have for it.
    pub fn id(self) -> u32 {
        match self {
            GgufType::F32 => 0,
            GgufType::F16 => 1,
            GgufType::Q4_0 => 2,
            GgufType::Q4_1 => 3,
            GgufType::Q5_0 => 6,
            GgufType::Q5_1 => 7,
            GgufType::Q8_0 => 8,
            GgufType::Q2_K => 10,
            GgufType::Q3_K => 11,
            GgufType::Q4_K => 12,
            GgufType::Q5_K => 13,
            GgufType::Q6_K => 14,
            GgufType::BF16 => 30,
            GgufType::Other(id) => id,
        }
    }

    /// The type of that number.
    pub fn from_id(id: u32) -> Self {
        Self::ALL.into_iter().find(|t| t.id() == id).unwrap_or(GgufType::Other(id))
    }

    /// The name that the format's programs use; `?` for others.
    pub fn name(self) -> &'static str {
        match self {
            GgufType::F32 => "F32",
            GgufType::F16 => "F16",
            GgufType::BF16 => "BF16",
            GgufType::Q4_0 => "Q4_0",
            GgufType::Q4_1 => "Q4_1",
            GgufType::Q5_0 => "Q5_0",
            GgufType::Q5_1 => "Q5_1",
            GgufType::Q8_0 => "Q8_0",
            GgufType::Q2_K => "Q2_K",
            GgufType::Q3_K => "Q3_K",
            GgufType::Q4_K => "Q4_K",
            GgufType::Q5_K => "Q5_K",
            GgufType::Q6_K => "Q6_K",
            GgufType::Other(_) => "?",
        }
    }

    /// The type of that name, in any case.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|t| t.name().eq_ignore_ascii_case(name))
    }

    /// Elements and bytes of a block, `None` for types that are not read.
    pub fn block(self) -> Option<(usize, usize)> {
        Some(match self {
            GgufType::F32 => (1, 4),
            GgufType::F16 | GgufType::BF16 => (1, 2),
            GgufType::Q4_0 => (32, 18),
            GgufType::Q4_1 => (32, 20),
            GgufType::Q5_0 => (32, 22),
            GgufType::Q5_1 => (32, 24),
            GgufType::Q8_0 => (32, 34),
            GgufType::Q2_K => (256, 84),
            GgufType::Q3_K => (256, 110),
            GgufType::Q4_K => (256, 144),
            GgufType::Q5_K => (256, 176),
            GgufType::Q6_K => (256, 210),
            GgufType::Other(_) => return None,
        })
    }

    /// The type of elements that are floats.
    pub fn float(self) -> Option<DType> {
        match self {
            GgufType::F32 => Some(DType::F32),
            GgufType::F16 => Some(DType::F16),
            GgufType::BF16 => Some(DType::BF16),
            _ => None,
        }
    }

    /// The type that holds such floats.
    pub fn of_floats(dtype: DType) -> Option<Self> {
        Self::ALL.into_iter().find(|t| t.float() == Some(dtype))
    }

    /// Bits of a code and elements of a group, `None` for types without codes or that are not read.
    pub fn codes(self) -> Option<(u8, usize)> {
        Some(match self {
            GgufType::Q4_0 | GgufType::Q4_1 | GgufType::Q4_K => (4, 32),
            GgufType::Q5_0 | GgufType::Q5_1 | GgufType::Q5_K => (5, 32),
            GgufType::Q8_0 => (8, 32),
            GgufType::Q2_K => (2, 16),
            GgufType::Q3_K => (3, 16),
            GgufType::Q6_K => (6, 16),
            GgufType::F32 | GgufType::F16 | GgufType::BF16 | GgufType::Other(_) => return None,
        })
    }

    /// Bytes of a row of `k` elements.
    ///
    /// # Errors
    /// `Unsupported` for types that are not read, `Shape` if `k` is no multiple of the block.
    pub fn row_bytes(self, k: usize) -> Result<usize> {
        let Some((len, bytes)) = self.block() else {
            return Err(Error::unsupported(
                format!("GGUF type {}", self.id()),
                "its blocks are not known here; convert the tensor to one of the Q or K types",
            ));
        };
        if !k.is_multiple_of(len) {
            return Err(Error::shape("k", format!("a multiple of {len} for {}", self.name()), &[k]));
        }
        (k / len)
            .checked_mul(bytes)
            .ok_or_else(|| Error::shape("k", "a row that fits the address space", &[k]))
    }
}
