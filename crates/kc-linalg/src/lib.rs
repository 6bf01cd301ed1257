//! Dense linear algebra over faer: decompositions, pairwise distances, and matrix scores
