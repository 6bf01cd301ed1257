//! Which layers need 8-bit activations.

use std::collections::BTreeMap;

use kc_core::{Error, Result, TensorView};
use kc_gemm::gemm;

use super::{FlexLinear, KernelChoice, QuantMatrix, QuantSpec};
use crate::metrics::relative_error;

/// A layer with calibration inputs.
#[derive(Debug, Clone, Copy)]
pub struct LayerSample<'a> {
    /// Its name.
    pub name: &'a str,
    /// Weights `[N, K]`.
    pub w: TensorView<'a, f32, 2>,
    /// Inputs `[T, K]`.
    pub x: TensorView<'a, f32, 2>,
}

/// Relative errors `||Q(X) Q(W)^T - X W^T||_F / ||X W^T||_F` of a layer's output.
#[derive(Debug, Clone, PartialEq)]
pub struct Sensitivity {
    /// The layer.
    pub name: String,
    /// With 6-bit activations.
    pub e6: f64,
    /// With 8-bit activations.
    pub e8: f64,
    /// With activations as they are: what the weights cost.
    pub e16: f64,
    /// With activations as they are and weights of 4, 6 and 8 bits.
    pub weights: [f64; 3],
    /// Multiplications on the calibration inputs, `T N K`.
    pub macs: u64,
}

/// Measures each layer with weights of `spec.bits` bits. `O(T N K)` each.
///
/// # Errors
/// As [`QuantMatrix::quantize`] and [`FlexLinear::forward`]; `Empty` for a layer without inputs.
pub fn sensitivity(layers: &[LayerSample<'_>], spec: &QuantSpec) -> Result<Vec<Sensitivity>> {
    layers.iter().map(|layer| measure(layer, spec)).collect()
}

fn measure(layer: &LayerSample<'_>, spec: &QuantSpec) -> Result<Sensitivity> {
    if layer.x.rows() == 0 {
        return Err(Error::empty(format!("x of {}", layer.name)));
    }
    let exact = gemm(layer.x, layer.w.transposed())?;
    let matrix = QuantMatrix::quantize(layer.w, spec)?;
    let linear = FlexLinear::new(&matrix, None, KernelChoice::Auto)?;
    let with = |bits| relative_error(linear.forward(layer.x, bits)?.view(), exact.view());
    let only_weights = |bits| -> Result<f64> {
        let w = QuantMatrix::quantize(layer.w, &QuantSpec { bits, ..*spec })?.dequantize()?;
        relative_error(gemm(layer.x, w.view().transposed())?.view(), exact.view())
    };
    let [n, k] = layer.w.shape();
    Ok(Sensitivity {
        name: layer.name.to_owned(),
        e6: with(6)?,
        e8: with(8)?,
        e16: only_weights(spec.bits)?,
        weights: [only_weights(4)?, only_weights(6)?, only_weights(8)?],
        macs: layer.x.rows() as u64 * n as u64 * k as u64,
    })
}

/// How to choose the layers with 8-bit activations.
#[derive(Debug, Clone, PartialEq)]
pub enum Policy {
    /// Those whose `e6` is more than so many times `e16`.
    Threshold(f64),
    /// Those with the largest `e6`, as long as they do at most this share (0 to 1) of the multiplications. A layer
    /// that does not fit is passed over.
    Budget(f64),
    /// Those whose name ends with one of these, and not with `attention.output.dense`: the published rule.
    Names(Vec<String>),
}

impl Policy {
    /// The published list: down projections, and what other architectures call them.
    pub fn published_names() -> Self {
        Policy::Names(["down_proj", "fc2", "output.dense"].map(str::to_owned).to_vec())
    }
}

impl Default for Policy {
    /// `Threshold(2.0)`.
    fn default() -> Self {
        Policy::Threshold(2.0)
    }
}

/// What a layer of a [`Plan`] gets.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PlannedLayer {
    /// Bits of activations: 6 or 8.
    pub abits: u8,
    /// Bits of weights.
    pub wbits: u8,
    /// With 6-bit activations.
    pub e6: f64,
    /// With 8-bit activations.
    pub e8: f64,
    /// With activations as they are.
    pub e16: f64,
    /// Multiplications on the calibration inputs.
    pub macs: u64,
}

/// The bits of each layer, by name.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Plan {
    /// The layers.
    pub layers: BTreeMap<String, PlannedLayer>,
}

impl Plan {
    /// The share of multiplications that have 8-bit activations.
    pub fn share_of_8_bits(&self) -> f64 {
        let macs = |least| self.layers.values().filter(|l| l.abits >= least).map(|l| l.macs).sum::<u64>();
        if macs(0) == 0 { 0.0 } else { macs(8) as f64 / macs(0) as f64 }
    }

    /// Chooses the bits of weights too: 8 where 6 lose more than `threshold` times what the median layer loses, 4
    /// where 4 lose no more than the median layer loses with 6.
    pub fn choose_weight_bits(&mut self, rows: &[Sensitivity], threshold: f64) {
        let mut errors: Vec<f64> = rows.iter().map(|row| row.weights[1]).collect();
        errors.sort_by(f64::total_cmp);
        let Some(&median) = errors.get(errors.len() / 2) else { return };
        for row in rows {
            if let Some(layer) = self.layers.get_mut(&row.name) {
                let [e4, e6, _] = row.weights;
                layer.wbits = if e4 <= median {
                    4
                } else if e6 > threshold * median {
                    8
                } else {
                    6
                };
            }
        }
    }
}

/// Chooses 8-bit activations by `policy`; weights have the bits that they were measured with (`wbits`).
///
/// # Errors
/// `Argument` for a negative threshold or a budget outside of 0 to 1, or for two layers of one name.
pub fn plan(rows: &[Sensitivity], wbits: u8, policy: &Policy) -> Result<Plan> {
    let mut layers = BTreeMap::new();
    for row in rows {
        let Sensitivity { name, e6, e8, e16, macs, .. } = row;
        let layer = PlannedLayer { abits: 6, wbits, e6: *e6, e8: *e8, e16: *e16, macs: *macs };
        if layers.insert(name.clone(), layer).is_some() {
            return Err(Error::argument("layers", "names that differ", name));
        }
    }
    match policy {
        Policy::Threshold(t) if !(*t >= 0.0) => {
            return Err(Error::argument("threshold", "a number of at least 0", t));
        }
        Policy::Threshold(t) => {
            for layer in layers.values_mut() {
                if layer.e6 > t * layer.e16 {
                    layer.abits = 8;
                }
            }
        }
        Policy::Budget(share) if !(0.0..=1.0).contains(share) => {
            return Err(Error::argument("budget", "0 to 1", share));
        }
        Policy::Budget(share) => {
            let all: u64 = layers.values().map(|l| l.macs).sum();
            let mut by_error: Vec<&mut PlannedLayer> = layers.values_mut().collect();
            // Stable, and the map is in the order of names: ties go by name.
            by_error.sort_by(|a, b| b.e6.total_cmp(&a.e6));
            let mut used = 0;
            for layer in by_error {
                if (used + layer.macs) as f64 <= share * all as f64 {
                    used += layer.macs;
                    layer.abits = 8;
                }
            }
        }
        Policy::Names(suffixes) => {
            for (name, layer) in &mut layers {
                let named = suffixes.iter().any(|s| name.ends_with(s.as_str()));
                if named && !name.ends_with("attention.output.dense") {
                    layer.abits = 8;
                }
            }
        }
    }
    Ok(Plan { layers })
}
