//! Readers and writers for npy, npz, safetensors, Matrix Market, CSV, FASTA and JSON that survive hostile files

/// Reads a tensor.
pub fn read(_path: impl AsRef<std::path::Path>) -> kc_core::Result<kc_core::AnyTensor> {
    Err(kc_core::Error::unsupported("read", "being written"))
}
