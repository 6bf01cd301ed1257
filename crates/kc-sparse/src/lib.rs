//! Sparse matrices and products: deterministic parallel SpGEMM with semirings, masks and plans
