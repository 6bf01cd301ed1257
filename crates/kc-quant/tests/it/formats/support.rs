//! Arrays of a file by name, and views of them.

use kc_core::AnyTensor;
use kc_io::safetensors::SafeTensorsFile;
use kc_quant::formats::*;
use kc_testing::golden;

/// The arrays of a layer in a safetensors file.
pub(crate) struct Layer {
    file: SafeTensorsFile,
}

impl Layer {
    pub(crate) fn open(name: &str) -> Self {
        Self { file: SafeTensorsFile::open(golden(&format!("quant_formats/{name}.safetensors"))).unwrap() }
    }

    pub(crate) fn get(&self, name: &str) -> AnyTensor {
        self.file.get(&format!("layer.{name}")).unwrap()
    }
}

/// The arrays of GPTQ or AWQ files, kept alive for views.
pub(crate) struct Words {
    pub(crate) qweight: AnyTensor,
    pub(crate) qzeros: AnyTensor,
    pub(crate) scales: AnyTensor,
    pub(crate) g_idx: Option<AnyTensor>,
}

impl Words {
    pub(crate) fn of(layer: &Layer, g_idx: bool) -> Self {
        Self {
            qweight: layer.get("qweight"),
            qzeros: layer.get("qzeros"),
            scales: layer.get("scales"),
            g_idx: g_idx.then(|| layer.get("g_idx")),
        }
    }

    pub(crate) fn gptq(&self) -> GptqViews<'_> {
        GptqViews {
            qweight: self.qweight.view("qweight").unwrap(),
            qzeros: self.qzeros.view("qzeros").unwrap(),
            scales: ScaleView::of(&self.scales, "scales").unwrap(),
            g_idx: self.g_idx.as_ref().map(|x| x.view("g_idx").unwrap()),
        }
    }

    pub(crate) fn awq(&self) -> AwqViews<'_> {
        AwqViews {
            qweight: self.qweight.view("qweight").unwrap(),
            qzeros: self.qzeros.view("qzeros").unwrap(),
            scales: ScaleView::of(&self.scales, "scales").unwrap(),
        }
    }
}

/// Equal to the last bit; any NaN equals any other.
#[track_caller]
pub(crate) fn assert_same_bits(got: &[f32], want: &[f32], what: &str) {
    assert_eq!(got.len(), want.len(), "{what}");
    for (i, (g, w)) in got.iter().zip(want).enumerate() {
        assert!(
            g.to_bits() == w.to_bits() || g.is_nan() && w.is_nan(),
            "{what}: element {i}: {g:e}, not {w:e}"
        );
    }
}
