//! [`SeaParams`]: the numbers that a layer learns, by name.

use kc_core::math::Real;
use kc_core::{AnyTensor, Error, KcRng, Result, Tensor, shape::checked_len};

use kc_features::projection::{Scaling, orthogonal_projection};

use super::SeaConfig;

macro_rules! params {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// The parameters of a layer, row-major, or gradients by them. Those of the other kind of layer are empty.
        #[derive(Debug, Clone, PartialEq, Default)]
        pub struct SeaParams<T> {
            $($(#[$doc])* pub $name: Vec<T>,)*
        }

        impl<T: Real> SeaParams<T> {
            /// All of them with their names.
            pub fn entries(&self) -> Vec<(&'static str, &[T])> {
                vec![$((stringify!($name), &self.$name[..])),*]
            }

            /// All of them with their names, to change.
            pub fn entries_mut(&mut self) -> Vec<(&'static str, &mut Vec<T>)> {
                vec![$((stringify!($name), &mut self.$name)),*]
            }
        }
    };
}

params! {
    /// Directions of the random features `[m, d]`; fixed.
    proj,
    /// Encoder `[2d, 3d]`.
    enc_w,
    /// Its bias `[2d]`.
    enc_b,
    /// Scale of its normalisation `[2d]`.
    enc_ln_g,
    /// Shift of its normalisation `[2d]`.
    enc_ln_b,
    /// Row decoder `[s W', 2d]`.
    dec_w,
    /// Its bias `[s W']`.
    dec_b,
    /// First convolution `[C, C, 3, 3]`; for causal layers the rows are t-4, t-2 and t.
    c1_w,
    /// Its bias `[C]`.
    c1_b,
    /// Second convolution `[C, C, 3, 3]`.
    c2_w,
    /// Its bias `[C]`.
    c2_b,
    /// Last convolution `[H, C, 3, 3]`, or `[H, C, 1, 1]` in causal layers.
    c3_w,
    /// Its bias `[H]`.
    c3_b,
    /// Gates `[2, 2d]`.
    scale_w,
    /// Their biases `[2]`.
    scale_b,
    /// Learned positions of a causal layer `[max_len, d]`.
    pos,
    /// Scale of the normalisation before the convolutions `[W']`; causal.
    ln1_g,
    /// Shift of the normalisation before the convolutions `[W']`; causal.
    ln1_b,
    /// Scale of the normalisation of the scores `[t_m]`; causal.
    ln2_g,
    /// Shift of the normalisation of the scores `[t_m]`; causal.
    ln2_b,
}

/// The shape of every parameter of a layer.
pub fn shapes(config: &SeaConfig) -> Vec<(&'static str, Vec<usize>)> {
    let (d, h, c, w) = (config.head_dim, config.heads, config.channels(), config.width());
    let kernel = if config.causal { 1 } else { 3 };
    let mut all = vec![
        ("proj", vec![config.features(), d]),
        ("enc_w", vec![2 * d, 3 * d]),
        ("enc_b", vec![2 * d]),
        ("enc_ln_g", vec![2 * d]),
        ("enc_ln_b", vec![2 * d]),
        ("dec_w", vec![config.splits() * w, 2 * d]),
        ("dec_b", vec![config.splits() * w]),
        ("c1_w", vec![c, c, 3, 3]),
        ("c1_b", vec![c]),
        ("c2_w", vec![c, c, 3, 3]),
        ("c2_b", vec![c]),
        ("c3_w", vec![h, c, kernel, kernel]),
        ("c3_b", vec![h]),
        ("scale_w", vec![2, 2 * d]),
        ("scale_b", vec![2]),
    ];
    if config.causal {
        all.extend([
            ("pos", vec![config.max_len, d]),
            ("ln1_g", vec![w]),
            ("ln1_b", vec![w]),
            ("ln2_g", vec![config.t_m]),
            ("ln2_b", vec![config.t_m]),
        ]);
    }
    all
}

impl<T: Real> SeaParams<T> {
    /// Zeros of the shapes of `config`: where gradients are summed.
    ///
    /// # Errors
    /// If the memory cannot be had.
    pub fn zeros(config: &SeaConfig) -> Result<Self> {
        Self::fill(config, |_, len| Ok(vec![T::ZERO; len]))
    }

    /// Parameters of the shapes of `config` from a producer of each tensor.
    fn fill(config: &SeaConfig, mut make: impl FnMut(&'static str, usize) -> Result<Vec<T>>) -> Result<Self> {
        config.check()?;
        let mut all = SeaParams::default();
        let shapes = shapes(config);
        for (name, to) in all.entries_mut() {
            if let Some((name, shape)) = shapes.iter().find(|(n, _)| *n == name) {
                *to = make(name, checked_len(name, shape)?)?;
            }
        }
        Ok(all)
    }

    /// The parameters among named tensors; others are ignored.
    ///
    /// # Errors
    /// A name that is missing, a shape that does not fit `config` (`pos` may have any number of rows from 1), a value
    /// that is not finite.
    pub fn from_tensors<'a>(
        config: &SeaConfig,
        mut get: impl FnMut(&str) -> Option<&'a AnyTensor>,
    ) -> Result<Self> {
        let shapes = shapes(config);
        Self::fill(config, |name, len| {
            let tensor =
                get(name).ok_or_else(|| Error::argument(name, "a parameter of that name", "none"))?;
            let Some((_, want)) = shapes.iter().find(|(n, _)| *n == name) else { return Ok(Vec::new()) };
            let mut fits = tensor.shape() == want;
            if name == "pos" {
                fits = tensor.rank() == 2 && tensor.shape()[0] > 0 && tensor.shape()[1] == want[1];
            }
            if !fits || (name != "pos" && tensor.len() != len) {
                return Err(Error::shape(name, format!("{want:?}"), tensor.shape()));
            }
            let bytes = kc_core::Bytes::from_owner(tensor.bytes().to_vec());
            let flat = AnyTensor::new(tensor.dtype(), vec![tensor.len()], bytes)?.to_f64::<1>(name)?;
            match flat.as_slice().iter().position(|x| !x.is_finite()) {
                Some(at) => Err(Error::not_finite(name, &[at], flat.as_slice()[at])),
                None => Ok(flat.as_slice().iter().map(|x| T::from_f64(*x)).collect()),
            }
        })
    }

    /// The parameters as named tensors, for a file.
    ///
    /// # Errors
    /// If a parameter does not have the shape of `config`.
    pub fn to_tensors(&self, config: &SeaConfig) -> Result<Vec<(String, AnyTensor)>> {
        let mut out = Vec::new();
        for (name, mut shape) in shapes(config) {
            let Some((_, values)) = self.entries().into_iter().find(|(n, _)| *n == name) else { continue };
            if name == "pos" {
                shape[0] = values.len() / config.head_dim;
            }
            let values: Vec<f32> = values.iter().map(|x| x.to_f32()).collect();
            let flat = Tensor::from_slice([values.len()], &values)?.into_any();
            let bytes = kc_core::Bytes::from_owner(flat.bytes().to_vec());
            out.push((name.to_owned(), AnyTensor::new(flat.dtype(), shape, bytes)?));
        }
        Ok(out)
    }

    /// Fresh parameters: linear layers and convolutions uniform in `+-1 / sqrt(inputs)`, normalisations 1 and 0,
    /// positions normal, directions from [`redraw`](Self::redraw).
    ///
    /// # Errors
    /// Bad settings, or no memory.
    pub fn init(config: &SeaConfig, seed: u64) -> Result<Self> {
        let shapes = shapes(config);
        // Streams 0 and 1 draw the directions.
        let mut rng = KcRng::new(seed, 2);
        let mut all = Self::fill(config, |name, len| {
            let fan_in = |name: &str| -> f64 {
                let weights = name.replace("_b", "_w");
                let shape = shapes.iter().find(|(n, _)| *n == weights).map(|(_, s)| &s[1..]);
                shape.map_or(1.0, |s| s.iter().product::<usize>() as f64)
            };
            Ok(match name {
                "proj" => vec![T::ZERO; len],
                "pos" => (0..len).map(|_| T::from_f64(rng.normal())).collect(),
                name if name.ends_with("_g") => vec![T::ONE; len],
                "enc_ln_b" | "ln1_b" | "ln2_b" => vec![T::ZERO; len],
                name => {
                    let bound = fan_in(name).powf(-0.5);
                    (0..len).map(|_| T::from_f64((2.0 * rng.uniform() - 1.0) * bound)).collect()
                }
            })
        })?;
        all.redraw(config, seed)?;
        Ok(all)
    }

    /// New directions for the random features (every 1000 steps of training, the paper says): blocks of `d` orthogonal
    /// rows, the last block cut, row lengths those of Gaussian vectors.
    ///
    /// # Errors
    /// If the memory cannot be had.
    pub fn redraw(&mut self, config: &SeaConfig, seed: u64) -> Result<()> {
        let rows = orthogonal_projection::<f64>(config.features(), config.head_dim, seed, Scaling::Chi)?;
        self.proj = rows.as_slice().iter().map(|x| T::from_f64(*x)).collect();
        Ok(())
    }

    /// Refuses parameters of other sizes than those of `config`, or that are not finite.
    pub(super) fn check(&self, config: &SeaConfig) -> Result<()> {
        for (name, shape) in shapes(config) {
            let Some((_, values)) = self.entries().into_iter().find(|(n, _)| *n == name) else { continue };
            let want = shape.iter().product::<usize>();
            let fits = match name {
                "pos" => !values.is_empty() && values.len().is_multiple_of(config.head_dim),
                _ => values.len() == want,
            };
            if !fits {
                return Err(Error::shape(name, format!("{shape:?}"), &[values.len()]));
            }
            if let Some(at) = values.iter().position(|x| !x.to_f64().is_finite()) {
                return Err(Error::not_finite(name, &[at], values[at].to_f64()));
            }
        }
        Ok(())
    }

    /// The parameters in another precision.
    pub fn cast<U: Real>(&self) -> SeaParams<U> {
        let mut out = SeaParams::default();
        for ((_, to), (_, from)) in out.entries_mut().into_iter().zip(self.entries()) {
            *to = from.iter().map(|x| U::from_f64(x.to_f64())).collect();
        }
        out
    }

    /// Bytes of all parameters.
    pub fn bytes(&self) -> usize {
        self.entries().iter().map(|(_, x)| size_of_val(*x)).sum()
    }
}
