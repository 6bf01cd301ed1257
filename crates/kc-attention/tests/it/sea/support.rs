//! Golden cases as layers and inputs.

use kc_attention::sea::*;
use kc_core::{AnyTensor, Bytes, Isa, Tensor, TensorView};
use kc_testing::{golden, golden_json, golden_tensor};

pub(crate) const CASES: [&str; 6] =
    ["causal", "bidirectional_padded", "group_batch", "group_head", "group_query", "long_span"];

pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) config: SeaConfig,
    pub(crate) lengths: Option<Vec<usize>>,
    pub(crate) teacher: bool,
}

impl Case {
    pub(crate) fn new(name: &'static str) -> Self {
        let json = golden_json(&format!("sea/{name}/case.json"));
        let number = |key: &str| json[key].as_u64().expect("a number") as usize;
        let config = SeaConfig {
            heads: number("H"),
            head_dim: number("d"),
            t_m: number("T_M"),
            k: json["k"].as_f64().expect("a number"),
            causal: json["causal"].as_bool().expect("a flag"),
            group: Group::from_name(json["group"].as_str().expect("a name")).expect("a group"),
            ..SeaConfig::default()
        };
        let lengths =
            json["lengths"].as_array().map(|all| all.iter().map(|x| x.as_u64().unwrap() as usize).collect());
        let teacher = json["teacher"].as_bool().expect("a flag");
        Case { name, config, lengths, teacher }
    }

    pub(crate) fn all() -> impl Iterator<Item = Case> {
        CASES.into_iter().map(Case::new)
    }

    pub(crate) fn read<const N: usize>(&self, what: &str) -> Tensor<f32, N> {
        golden_tensor(&format!("sea/{}/{what}.npy", self.name))
    }

    /// All elements of an array of any rank.
    pub(crate) fn flat(&self, what: &str) -> Vec<f64> {
        self.line(what).to_f64::<1>("fixture").expect("numbers").into_vec()
    }

    pub(crate) fn ids(&self, what: &str) -> Vec<i64> {
        self.line(what).to_tensor::<i64, 1>("fixture").expect("numbers").into_vec()
    }

    fn line(&self, what: &str) -> AnyTensor {
        let any = kc_io::read(golden(&format!("sea/{}/{what}.npy", self.name))).expect("a fixture");
        let bytes = Bytes::from_owner(any.bytes().to_vec());
        AnyTensor::new(any.dtype(), vec![any.len()], bytes).expect("the same elements")
    }

    pub(crate) fn params(&self) -> SeaParams<f64> {
        let mut all = SeaParams::default();
        let names: Vec<&str> = shapes(&self.config).into_iter().map(|(name, _)| name).collect();
        for (name, values) in all.entries_mut() {
            if names.contains(&name) {
                *values = self.flat(&format!("p_{name}"));
            }
        }
        all
    }

    pub(crate) fn layer(&self, isa: Isa) -> SeaLayer<f32> {
        SeaLayer::new(self.config.clone(), self.params().cast()).expect("a layer").at(isa)
    }

    pub(crate) fn wide(&self, what: &str) -> Tensor<f64, 4> {
        let x: Tensor<f32, 4> = self.read(what);
        Tensor::from_fn(x.shape(), |i| f64::from(x[i])).expect("memory")
    }
}

pub(crate) fn inputs<'a, T: kc_core::Element>(
    [q, k, v]: [TensorView<'a, T, 4>; 3],
    lengths: Option<&'a [usize]>,
) -> SeaInputs<'a, T> {
    SeaInputs { lengths, ..SeaInputs::new(q, k, v) }
}
