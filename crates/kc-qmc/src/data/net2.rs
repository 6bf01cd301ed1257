//! Generating matrices of digital nets in base 2.
//!
//! | File | Numbers | Origin |
//! |---|---|---|
//! | `joe_kuo_6_21201.bin` | primitive polynomials and initial direction numbers of 21 201 dimensions | S. Joe and F. Kuo, *Constructing Sobol' sequences with better two-dimensional projections* (2008), file `new-joe-kuo-6.21201`, published by its authors under a BSD-style licence |
//! | `nx_s5_alpha2_m32.bin`, `nx_s5_alpha3_m32.bin` | 5 matrices of 32 columns and 32 bits, rows of little-endian `u32`, most significant bit first | Niederreiter-Xing nets of the Magic Point Shop (F. Kuo and D. Nuyens) |
//!
//! Both are lists of numbers, collected by the LDData repository, which has no licence file of its own.
//!
//! Joe and Kuo's file is packed, least significant bit first. For each dimension after the first (whose matrix is
//! the identity): 5 bits, the degree s of its polynomial; s - 1 bits, the inner coefficients, bit i that of
//! x^(i+1); then for i = 1, ..., s the odd number m_i in i - 1 bits, as (m_i - 1) / 2.

/// Dimensions of [`JOE_KUO`].
pub(crate) const JOE_KUO_DIMS: usize = 21_201;

/// Joe and Kuo's direction numbers, packed.
pub(crate) static JOE_KUO: &[u8] = include_bytes!("joe_kuo_6_21201.bin");

/// Dimensions of each Niederreiter-Xing table.
pub(crate) const NX_DIMS: usize = 5;

/// Columns and bits of each Niederreiter-Xing table.
pub(crate) const NX_COLUMNS: usize = 32;

/// Niederreiter-Xing matrices for interlacing factor 2.
pub(crate) static NX_ALPHA2: &[u8; 4 * NX_DIMS * NX_COLUMNS] = include_bytes!("nx_s5_alpha2_m32.bin");

/// Niederreiter-Xing matrices for interlacing factor 3.
pub(crate) static NX_ALPHA3: &[u8; 4 * NX_DIMS * NX_COLUMNS] = include_bytes!("nx_s5_alpha3_m32.bin");
