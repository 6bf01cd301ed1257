//! The loops compiled for AVX2, and the kernels with intrinsics.

#![expect(unsafe_code, reason = "functions compiled for a level that the Isa proves")]

use kc_core::{Isa, Level};

use super::kernel::SIDE;
use super::portable;
use super::rows::{EIGHT, each_loop};

/// Calls the function for groups of that many rows.
macro_rules! by_rows {
    ($level:ident, $isa:ident, $rows:ident, $name:ident $(<$generic:tt>)? ($($arg:expr),*)) => {{
        assert!($isa.level() >= Level::$level, "the kernel needs its level");
        // SAFETY: an Isa of this level was detected, so the processor has its instructions; the caller has checked the
        // lengths of all slices.
        unsafe {
            match $rows {
                FEW => $name::<FEW $(, $generic)?>($($arg),*),
                ROWS => $name::<ROWS $(, $generic)?>($($arg),*),
                other => unreachable!("groups of {other} rows"),
            }
        }
    }};
}

pub(super) mod avx2;
pub(super) mod avx512;
pub(super) mod decode;

/// A safe entry for each loop of [`portable`], compiled for AVX2.
macro_rules! entries {
    ($($(#[$doc:meta])* $name:ident($($arg:ident: $type:ty),*) $(-> $out:ty)?;)*) => {$(
        $(#[$doc])*
        #[inline]
        pub(super) fn $name(isa: Isa, $($arg: $type),*) $(-> $out)? {
            #[target_feature(enable = "avx2")]
            fn avx2($($arg: $type),*) $(-> $out)? {
                portable::$name($($arg),*)
            }
            assert!(isa.level() >= Level::Avx2, "the loop needs AVX2");
            // SAFETY: an Isa of this level was detected, so the processor has AVX2.
            unsafe { avx2($($arg),*) }
        }
    )*};
}

each_loop!(entries);

/// Whether this thread neither flushes small results to zero nor takes small operands for zero.
pub(super) fn keeps_small_floats() -> bool {
    const FLUSH_TO_ZERO: u32 = 1 << 15;
    const DENORMALS_ARE_ZERO: u32 = 1 << 6;
    let mut state = 0u32;
    // SAFETY: stores the 32 bits of the register, which every x86-64 processor has, to the variable.
    unsafe { std::arch::asm!("stmxcsr [{}]", in(reg) &mut state, options(nostack, preserves_flags)) };
    state & (FLUSH_TO_ZERO | DENORMALS_ARE_ZERO) == 0
}
