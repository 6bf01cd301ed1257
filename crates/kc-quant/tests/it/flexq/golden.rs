//! The nine cases made by another program.

use kc_core::{Isa, Tensor};
use kc_quant::flexq::*;
use kc_quant::int::{pack_stream, stream_words};
use kc_quant::{Group, ScaleDtype};
use kc_testing::{Tol, assert_close, each_isa, golden_json, golden_tensor};
use serde_json::Value;

struct Case {
    meta: Value,
    spec: QuantSpec,
    x: Tensor<f32, 2>,
    w: Tensor<f32, 2>,
}

fn cases() -> Vec<Case> {
    let all = golden_json("flexq/cases.json");
    all.as_array().unwrap().iter().map(Case::read).collect()
}

fn file(meta: &Value, what: &str) -> String {
    format!("flexq/case{:02}_{what}.npy", meta["case"].as_u64().unwrap())
}

impl Case {
    fn read(meta: &Value) -> Self {
        let spec = QuantSpec {
            bits: meta["wbits"].as_u64().unwrap() as u8,
            group: meta["group"].as_u64().map_or(Group::Row, |g| Group::Size(g as usize)),
            scheme: match meta["scheme"].as_str().unwrap() {
                "sym" => Scheme::Sym,
                "asym" => Scheme::Asym,
                "asym_free" => Scheme::AsymFree,
                other => panic!("scheme {other}"),
            },
            scale_dtype: ScaleDtype::from_name(meta["scale_dtype"].as_str().unwrap()).unwrap(),
            scale_floor: 0.0,
        };
        let read = |what: &str| golden_tensor(&file(meta, what));
        Case { meta: meta.clone(), spec, x: read("x"), w: read("w") }
    }

    fn file(&self, what: &str) -> String {
        file(&self.meta, what)
    }

    fn abits(&self) -> u8 {
        self.meta["abits"].as_u64().unwrap() as u8
    }

    fn bias(&self) -> Option<Vec<f32>> {
        let with = self.meta["bias"].as_bool().unwrap();
        with.then(|| golden_tensor::<f32, 1>(&self.file("bias")).into_vec())
    }

    fn matrix(&self) -> QuantMatrix {
        QuantMatrix::quantize(self.w.view(), &self.spec).unwrap()
    }
}

#[test]
fn weights_have_the_same_codes_scales_zeros_and_words() {
    for case in cases() {
        let q = case.matrix();
        assert_eq!(q.codes().unwrap().as_slice(), golden_tensor::<i16, 2>(&case.file("cw")).as_slice());
        assert_eq!(q.scales().unwrap().as_slice(), golden_tensor::<f32, 2>(&case.file("sw")).as_slice());
        assert_eq!(q.zeros().unwrap().as_slice(), golden_tensor::<i32, 2>(&case.file("zw")).as_slice());

        let [n, k] = q.uniform().shape();
        let words = stream_words(k, case.spec.bits);
        let mut packed = vec![0u32; n * words];
        for (row, out) in q.uniform().codes().chunks(k).zip(packed.chunks_mut(words)) {
            pack_stream(row, case.spec.bits, out);
        }
        let want: Tensor<i32, 2> = golden_tensor(&case.file("wpacked"));
        let want: Vec<u32> = want.as_slice().iter().map(|&w| w as u32).collect();
        assert_eq!(packed, want);
    }
}

#[test]
fn activations_have_the_same_codes_on_every_level() {
    for case in cases() {
        each_isa(|isa| {
            let layer = FlexLinear::new_with(isa, &case.matrix(), None, KernelChoice::Auto).unwrap();
            let mut codes = Activations::new();
            let mut y = Tensor::<f32, 2>::zeros([case.x.shape()[0], case.w.shape()[0]]).unwrap();
            layer.forward_into(case.x.view(), case.abits(), y.view_mut(), &mut codes).unwrap();
            assert_eq!(codes.codes(), golden_tensor::<i16, 2>(&case.file("cx")).as_slice());
            assert_eq!(codes.scales(), golden_tensor::<f32, 2>(&case.file("sx")).as_slice());
            assert_eq!(codes.zeros(), golden_tensor::<i32, 2>(&case.file("zx")).as_slice());
        });
    }
}

/// `2e-6 sum|terms|` of each element, from the codes.
fn bounds(case: &Case) -> Vec<f64> {
    let read = |what: &str| golden_tensor::<i16, 2>(&case.file(what));
    let scale = |what: &str| golden_tensor::<f32, 2>(&case.file(what));
    let zero = |what: &str| golden_tensor::<i32, 2>(&case.file(what));
    let (qx, qw, sx, sw, zx, zw) = (read("cx"), read("cw"), scale("sx"), scale("sw"), zero("zx"), zero("zw"));
    let ([m, k], n) = (qx.shape(), qw.shape()[0]);
    let group = case.spec.group.len(k).unwrap();
    let groups = k.div_ceil(group);
    let mut bounds = vec![0f64; m * n];
    for i in 0..m {
        for j in 0..n {
            for c in 0..k {
                let g = c / group;
                let x = f64::from(sx.as_slice()[i * groups + g])
                    * f64::from(i32::from(qx.as_slice()[i * k + c]) - zx.as_slice()[i * groups + g]);
                let w = f64::from(sw.as_slice()[j * groups + g])
                    * f64::from(i32::from(qw.as_slice()[j * k + c]) - zw.as_slice()[j * groups + g]);
                bounds[i * n + j] += 2e-6 * (x * w).abs();
            }
        }
    }
    bounds
}

#[test]
fn products_are_within_the_bound_for_every_kernel_and_level_with_the_same_bits() {
    for case in cases() {
        let want: Tensor<f64, 2> = golden_tensor(&case.file("y"));
        let (bounds, bias) = (bounds(&case), case.bias());
        let mut first: Option<Vec<f32>> = None;
        let mut run = |isa: Isa, choice: KernelChoice| {
            let layer = FlexLinear::new_with(isa, &case.matrix(), bias.as_deref(), choice).unwrap();
            let y = layer.forward(case.x.view(), case.abits()).unwrap();
            for ((got, want), bound) in y.as_slice().iter().zip(want.as_slice()).zip(&bounds) {
                assert!((f64::from(*got) - want).abs() <= bound + want.abs() * 1e-7, "{got} {want} {bound}");
            }
            let first = first.get_or_insert_with(|| y.as_slice().to_vec());
            assert_eq!(y.as_slice(), first, "{choice:?} on {isa}");
        };
        for choice in [KernelChoice::Reference, KernelChoice::Portable, KernelChoice::Popcount] {
            run(Isa::best(), choice);
        }
        run(Isa::PORTABLE, KernelChoice::Popcount);
        for isa in Isa::available() {
            run(isa, KernelChoice::Auto);
        }
    }
}

#[test]
fn the_reference_product_is_the_fixture() {
    for case in cases() {
        let layer = FlexLinear::new(&case.matrix(), None, KernelChoice::Portable).unwrap();
        let mut codes = Activations::new();
        let [n, k] = case.w.shape();
        let m = case.x.shape()[0];
        let mut y = Tensor::<f32, 2>::zeros([m, n]).unwrap();
        layer.forward_into(case.x.view(), case.abits(), y.view_mut(), &mut codes).unwrap();
        let q = case.matrix();
        let mut got = reference::product(
            [m, n, k],
            case.spec.group.len(k).unwrap(),
            (&codes.codes(), &codes.scales(), &codes.zeros()),
            (q.codes().unwrap().as_slice(), q.scales().unwrap().as_slice(), q.zeros().unwrap().as_slice()),
        );
        if let Some(bias) = case.bias() {
            got.iter_mut().enumerate().for_each(|(i, y)| *y += f64::from(bias[i % n]));
        }
        assert_close(&got, golden_tensor::<f64, 2>(&case.file("y")).as_slice(), Tol::new(1e-12, 1e-25));
    }
}

#[test]
fn planes_are_the_published_ones_and_multiply_without_codes() {
    let mut seen = 0;
    for case in cases() {
        if case.spec.scheme != Scheme::Sym || case.w.shape()[1] % 128 != 0 {
            continue;
        }
        seen += 1;
        let want: Tensor<u32, 5> = golden_tensor(&case.file("wplanes"));
        let q = case.matrix();
        let codes = q.codes().unwrap();
        let planes = to_planes(codes.view(), case.spec.bits).unwrap();
        assert_eq!(planes.shape(), want.shape());
        assert_eq!(planes.as_slice(), want.as_slice());
        assert_eq!(from_planes(want.view(), codes.shape()[0]).unwrap().as_slice(), codes.as_slice());

        let (scales, bias) = (q.scales().unwrap(), case.bias());
        let group = case.spec.group.len(codes.shape()[1]).unwrap();
        let layer = FlexLinear::from_planes(want.view(), scales.view(), group, bias.as_deref()).unwrap();
        assert_eq!(layer.kernel(), Kernel::Popcount);
        if case.spec.scale_dtype == ScaleDtype::F32 {
            let y = layer.forward(case.x.view(), case.abits()).unwrap();
            let other = FlexLinear::new(&q, bias.as_deref(), KernelChoice::Auto).unwrap();
            assert_eq!(y.as_slice(), other.forward(case.x.view(), case.abits()).unwrap().as_slice());
        }
    }
    assert!(seen >= 5);
}
