//! Scalable neural network kernels: a feed-forward layer as a product of features of its input and of its weights.
//!
//! `f(W x + b)` becomes `y = Re(Phi(x) Psi(W, b)^T)`: a random map `Phi` of the input, a map `Psi` of each row of weights,
//! `m` features, the same random numbers in both. Inputs and parameters meet in that product only, so `psi = Psi(W, b)`
//! `[out, m]` is what is kept and trained, instead of `W` `[out, d]`; and since the next layer sees a product again,
//! consecutive layers merge.
//!
//! | [`Nonlinearity`] | `y` tends to | `m` real features |
//! |---|---|---|
//! | `Relu` (default) | the arc-cosine kernel of order 1, halved ([`arc_cosine`](crate::arc_cosine)) | `m^-1/2 max(G x, t)` |
//! | `Universal` | `f(w . x + b)`: cos, sin, gauss, sinc, lorentz, sech, your spectrum | [`universal`](crate::universal), 2 m in halves |
//! | `Maclaurin` | `f(w . x)`: exp, tanh, gelu, your series | [`maclaurin`](crate::maclaurin) |
//!
//! | Item | What it is |
//! |---|---|
//! | [`SnnkLayer`] | the layer: from weights, forward, gradients by `x`, `psi`, `G` and through `Psi` by `W` and `b` |
//! | [`Adapter`] | `x + Up(layer(x))` or `x + v o layer(x)`, normalised or not, and [`Adapter::merge`] |
//! | [`bundle()`], [`Bundle`], [`Bundled`] | a run of layers as one matrix `psi_l = Psi_l(W_l psi_{l-1})` |
//! | [`fit_closed_form`], [`fit_weighted`], [`StreamingFit`] | that matrix by least squares, without training |
//! | [`fit_logistic`] | that matrix for classes, by Newton's method |
//! | [`exact_layer`], [`mod@reference`] | what features tend to, and the definitions in plain loops |
//!
//! ```
//! use kc_core::TensorView;
//! use kc_features::snnk::{Nonlinearity, SnnkConfig, SnnkLayer, exact_layer};
//! use kc_features::universal::Spectrum;
//!
//! let w = TensorView::from_slice([2, 3], &[0.3f64, -0.2, 0.5, 0.1, 0.4, -0.3])?;
//! let x = TensorView::from_slice([1, 3], &[0.6, 0.2, -0.4])?;
//! let sine = Nonlinearity::Universal { spectrum: Spectrum::Sin, split: 0.5, lam: 0.0, antithetic: false };
//! let config = SnnkConfig { map: sine, features: 4000, ..SnnkConfig::default() };
//! let layer = SnnkLayer::from_weights(w, Some(&[0.1, -0.2]), &config)?;
//! let (y, exact) = (layer.forward(x)?, exact_layer(f64::sin, x, w, Some(&[0.1, -0.2]))?);
//! assert!((y[[0, 0]] - exact[[0, 0]]).abs() < 0.05 && (y[[0, 1]] - exact[[0, 1]]).abs() < 0.05);
//! # Ok::<(), kc_core::Error>(())
//! ```
//!
//! # Error
//! Unbiased; the error falls as `m^-1/2`. Orthogonal directions ([`Draw::Orthogonal`](crate::Draw::Orthogonal)) make it
//! smaller at the same cost. Lorentz and sech have infinite variance. ReLU features are a nonlinearity of their own,
//! **not** `relu(w . x)`: a layer is trained with them, not replaced by them.
//!
//! # Cost
//! `n m (d + out)` multiplications against `n d out` (complex features: `n m (d + 2 out)`): with d = 768, out = 3072 and
//! m = 64 that is 9.6 times fewer, and the same at `m = d out / (d + out)` = 614. Features are made and used in tiles of 84
//! rows, which stay in the second cache and are never stored; directions and `psi` are packed once. Both products run at
//! the rate of a large product on an AVX2 core, since even 64 multiplications for each number stored hide the stores:
//! the limit is multiply-add, not bandwidth. The module therefore has no kernels of its own: what would be `x86.rs` is
//! kc-gemm's tile and kc-core's exponentials.
//!
//! # When not to use it
//! Where the layer must be that of a trained network to many digits: `m` would have to exceed the break-even. Universal
//! features want `|x| |w|` of about 1 or less (`normalize`); exponents above 80 are an error that names the row.
//!
//! # Source
//! "Scalable Neural Network Kernels" (2023, ICLR 2024): sections 3 (the kernels, universal random features), 3.3
//! (bundling), 4 (adapters, uptraining). What follows the definition where the published program does not: Gaussian
//! directions everywhere, drawn once and kept; the factor 1/2 of `|x|^2`; the coefficients of tanh.

mod adapter;
mod bundle;
mod classify;
mod fit;
mod layer;
mod map;
mod params;
mod portable;
pub mod reference;
mod stream;

pub use adapter::{Adapter, AdapterConfig, AdapterGradients, Init, Norm, Up};
pub use bundle::{Bundle, Bundled, Weights, bundle};
pub use classify::{Logistic, LogisticConfig, fit_logistic};
pub use fit::{fit_closed_form, fit_weighted};
pub use layer::{LayerGradients, SnnkLayer};
pub use map::{Features, Map, Nonlinearity, RowGradients, SnnkConfig};
pub use params::{Lookup, Tensors};
pub use reference::exact_layer;
pub use stream::StreamingFit;
