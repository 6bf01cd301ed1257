//! Tables of numbers that come with the crate. Lists of numbers only; each function says whose they are.

pub(crate) mod net2;

/// A number of three bytes.
fn u24(bytes: &[u8], at: usize) -> u32 {
    match bytes.get(3 * at..3 * at + 3) {
        Some(&[a, b, c]) => u32::from_le_bytes([a, b, c, 0]),
        _ => 0,
    }
}

/// Components of [`lattice_kuo`].
pub(crate) const LATTICE_KUO_DIMS: usize = 9125;

/// Component `dim` of the extensible lattice rule "lattice-33002-1024-1048576.9125" of F. Y. Kuo (weights of order 3,
/// good for 2^10 to 2^20 points), <https://web.maths.unsw.edu.au/~fkuo/lattice/>.
pub(crate) fn lattice_kuo(dim: usize) -> u32 {
    u24(include_bytes!("lattice_kuo.bin"), dim)
}

/// Components of [`lattice_ckn`].
pub(crate) const LATTICE_CKN_DIMS: usize = 250;

/// Component `dim` of the embedded lattice rule "exod2_base2_m20" of R. Cools, F. Y. Kuo and D. Nuyens,
/// *Constructing embedded lattice rules for multivariate integration*, SIAM J. Sci. Comput. 28 (2006), from the
/// Magic Point Shop.
pub(crate) fn lattice_ckn(dim: usize) -> u32 {
    u24(include_bytes!("lattice_ckn.bin"), dim)
}

/// Largest dimension of the Korobov table.
pub(crate) const KOROBOV_DIMS: usize = 250;

/// Sizes `n` that [`korobov`] knows, ascending.
pub(crate) fn korobov_sizes() -> impl ExactSizeIterator<Item = u32> {
    let bytes = include_bytes!("korobov_n.bin");
    (0..bytes.len() / 3).map(|at| u24(bytes, at))
}

/// The best Korobov parameter for the `row`-th size and 1 to 250 `dims`, by exhaustive search for the smallest P2
/// with weights `1 / j^2` as published with QMCPy.
pub(crate) fn korobov(row: usize, dims: usize) -> u32 {
    u24(include_bytes!("korobov_a.bin"), row * KOROBOV_DIMS + dims - 1)
}

/// Multipliers of [`halton_qrng`].
pub(crate) const HALTON_QRNG_DIMS: usize = 360;

/// The multiplier of digits in base `prime(dim)`: H. Faure and C. Lemieux, *Generalized Halton sequences in 2008:
/// a comparative study*, ACM Trans. Model. Comput. Simul. 19 (2009).
pub(crate) fn halton_qrng(dim: usize) -> u32 {
    match include_bytes!("halton_qrng.bin").get(2 * dim..2 * dim + 2) {
        Some(&[a, b]) => u32::from(u16::from_le_bytes([a, b])),
        _ => 0,
    }
}
