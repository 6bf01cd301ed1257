//! Readers and writers for npy, npz, safetensors, Matrix Market, CSV, FASTA and JSON that survive hostile files
