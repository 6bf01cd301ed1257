//! Test support shared by all kc crates: golden data, comparators, sizes, strategies and an allocation
//! counter. Never published, and always a dev-dependency.

pub mod alloc;
mod compare;
mod golden;
mod gradient;
mod inputs;

pub use compare::{Tol, assert_close, max_abs_diff, relative_error, ulp_distance_f32, ulp_distance_f64};
pub use golden::{golden, golden_dir, golden_json, golden_tensor};
pub use gradient::assert_gradient;
pub use inputs::{Strided, cycle_251, cycle_i8, normals, sizes, strided, uniforms};

use kc_core::Isa;

/// Runs `body` on every level that this processor has, lowest first.
pub fn each_isa(mut body: impl FnMut(Isa)) {
    for isa in Isa::available() {
        body(isa);
    }
}

/// The value of `body` on pools of 1, 2 and 3 threads, which must all be equal.
///
/// # Panics
/// If two pools give different values.
pub fn same_on_any_pool<R: PartialEq + std::fmt::Debug + Send>(body: impl Fn() -> R + Sync) -> R {
    let on = |threads| match rayon::ThreadPoolBuilder::new().num_threads(threads).build() {
        Ok(pool) => pool.install(&body),
        Err(error) => panic!("no pool of {threads} threads: {error}"),
    };
    let one = on(1);
    for threads in [2, 3] {
        assert!(on(threads) == one, "{threads} threads differ from one");
    }
    one
}
