//! Layers as products of random features.

mod adapter;
mod bundle;
mod classify;
mod fit;
mod layer;
mod map;
mod params;
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
