//! Results against the fixtures: near what the simulated algorithm makes of exact attention, and not better.

use kc_attention::sage::{PvMode, QkBits, SageConfig, reference, sage_attention};
use kc_attention::{Mask, Metrics, compare};
use kc_core::{Isa, Tensor};
use kc_testing::{Tol, assert_close, each_isa, golden_json, golden_tensor};
use serde_json::Value;

use super::{CASES, case, config};

fn tensor<const N: usize>(case: &str, file: &str) -> Tensor<f32, N> {
    golden_tensor(&format!("sage_attention2/{case}/{file}.npy"))
}

/// `got` is as far from exact as the simulation: at most 15 % farther, and at 4 bits at least half as far.
fn assert_error(what: &str, got: Metrics, sim: &Value, bits: QkBits) {
    let number = |key: &str| sim[key].as_f64().unwrap();
    for (name, got, sim) in
        [("1 - cos", 1.0 - got.cos, 1.0 - number("cos")), ("rel_l1", got.rel_l1, number("rel_l1"))]
    {
        assert!(got <= 1.15 * sim, "{what}: {name} {got:e} against {sim:e}");
        assert!(bits == QkBits::Int8 || got >= 0.5 * sim, "{what}: {name} {got:e}, too good for {sim:e}");
    }
}

fn mask(case: &Value) -> Mask<'static> {
    if case["opts"]["causal"] == true { Mask::CAUSAL } else { Mask::NONE }
}

#[test]
fn cases_are_as_near_as_simulated() {
    for name in CASES {
        let case = case(name);
        let [q, k, v, exact, sim] = ["q", "k", "v", "o_exact", "o_sim"].map(|file| tensor::<4>(name, file));
        let (lse_exact, lse_sim): (Tensor<f32, 3>, Tensor<f32, 3>) =
            (tensor(name, "lse_exact"), tensor(name, "lse_sim"));
        let config = config(&case["opts"]);
        let mask = mask(&case);
        let plain = reference::sage_attention(q.view(), k.view(), v.view(), &mask, &config).unwrap();
        // A weight on the edge between two halves moves the result by that much.
        assert_close(plain.out.as_slice(), sim.as_slice(), Tol::abs(5e-5));
        assert_close(plain.lse.unwrap().as_slice(), lse_sim.as_slice(), Tol::abs(2e-5));
        each_isa(|isa| {
            let config = SageConfig { isa, ..config.clone() };
            let found = sage_attention(q.view(), k.view(), v.view(), &mask, &config).unwrap();
            let error = compare(found.out.view(), exact.view()).unwrap();
            assert_error(name, error, &case["sim_vs_exact"], config.bits);
            let lse = found.lse.unwrap();
            assert_close(lse.as_slice(), lse_sim.as_slice(), Tol::abs(1e-4));
            assert_close(lse.as_slice(), lse_exact.as_slice(), Tol::abs(0.2));
            // Far nearer to the simulation than that is to exact.
            let near = compare(found.out.view(), sim.view()).unwrap();
            assert!(near.rel_l1 < 0.2 * error.rel_l1, "{name} {isa}: {near:?} {error:?}");
        });
    }
}

#[test]
fn every_setting_of_the_table_is_as_near_as_simulated() {
    let [q, k, v, exact] = ["q", "k", "v", "o_exact"].map(|file| tensor::<4>("smoothing", file));
    let table = golden_json("sage_attention2/smoothing/case.json");
    for row in table["table"].as_array().unwrap() {
        let base = config(row);
        let run = |isa: Isa| {
            let config = SageConfig { isa, ..base.clone() };
            sage_attention(q.view(), k.view(), v.view(), &Mask::NONE, &config).unwrap().out
        };
        each_isa(|isa| {
            let error = compare(run(isa).view(), exact.view()).unwrap();
            let what = format!("{} {} {} at {isa}", row["bits"], row["gran"], row["pv"]);
            assert_error(&what, error, row, base.bits);
        });
    }
}

/// What rounding weights and values adds is at most what IEEE half adds.
#[test]
fn fixed_point_is_as_good_as_half() {
    for name in CASES.into_iter().chain(["smoothing"]) {
        let [q, k, v] = ["q", "k", "v"].map(|file| tensor::<4>(name, file));
        let mask = if name == "smoothing" { Mask::NONE } else { mask(&case(name)) };
        let with = |pv| SageConfig { pv, ..SageConfig::default() };
        let half = with(PvMode::F16 { f16_accum: false });
        let plain =
            |config| reference::sage_attention(q.view(), k.view(), v.view(), &mask, config).unwrap().out;
        let (none, rounded) = (plain(&with(PvMode::F32)), plain(&half));
        let bound = compare(rounded.view(), none.view()).unwrap();
        each_isa(|isa| {
            let config = SageConfig { isa, ..half.clone() };
            let found = sage_attention(q.view(), k.view(), v.view(), &mask, &config).unwrap().out;
            let error = compare(found.view(), none.view()).unwrap();
            assert!(
                error.rmse <= bound.rmse && error.rel_l1 <= bound.rel_l1,
                "{name} {isa}: {error:?} {bound:?}"
            );
        });
    }
}
