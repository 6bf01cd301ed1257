//! Tests of kc-gemm: every level against the plain loops of `kc_gemm::reference`.

mod int8;
