//! Fixtures: results and gradients of four cases, inverses of one matrix.

use kc_attention::soft::{
    Grid, Inverse, Landmark, SoftConfig, newton_inverse, soft_attention, soft_attention_backward,
};
use kc_core::{Isa, Tensor};
use kc_testing::{Tol, assert_close, each_isa, golden_dir, golden_json, golden_tensor};

const CASES: [&str; 4] = ["conv_ridge", "conv_norm_backtrack", "avgpool_exact_norm", "avgpool_ridge_ill"];

fn read<const N: usize>(case: &str, name: &str) -> Tensor<f32, N> {
    golden_tensor(&format!("soft/{case}/{name}.npy"))
}

/// Fails if an element differs by more than `tol` of the largest.
#[track_caller]
fn close<T: kc_core::Float, const N: usize>(got: &Tensor<T, N>, want: &Tensor<f32, N>, tol: f64) {
    assert_eq!(got.shape(), want.shape());
    let size = want.as_slice().iter().fold(0.0f32, |m, x| m.max(x.abs()));
    assert_close(got.as_slice(), want.as_slice(), Tol::abs(tol * f64::from(size)));
}

fn case(name: &str, isa: Isa) {
    let settings = golden_json(&format!("soft/{name}/case.json"));
    let number = |key: &str| settings[key].as_u64().expect("a number") as usize;
    let [q, v, dx] = ["q", "v", "dx"].map(|x| read::<4>(name, x));
    let (w, gamma, beta) = (read::<4>(name, "conv_w"), read::<1>(name, "ln_g"), read::<1>(name, "ln_b"));
    let local: Option<Tensor<f32, 3>> =
        golden_dir().join(format!("soft/{name}/dw.npy")).exists().then(|| read(name, "dw"));
    let (iters, ridge) = (number("iters"), settings["ridge"].as_f64().expect("a number"));
    let mut config = SoftConfig::new(Grid::Image { h: number("H"), w: number("W") }, number("r"));
    config.isa = isa;
    config.norm = settings["norm"] == true;
    config.local = local.as_ref().map(Tensor::view);
    config.inverse = match settings["inverse"].as_str() {
        Some("ridge") => Inverse::Newton { iters, ridge },
        Some("backtrack") => Inverse::NewtonBacktrack { iters },
        _ => Inverse::Exact { ridge },
    };
    let landmark = if settings["landmark"] == "conv" {
        Landmark::Conv { w: w.view(), gamma: gamma.as_slice(), beta: beta.as_slice() }
    } else {
        Landmark::AvgPool
    };
    // The fixtures are in f32; gradients through an ill-conditioned inverse carry its size.
    let (value, slope) = if name == "avgpool_ridge_ill" { (1e-5, 1e-4) } else { (2e-6, 5e-6) };
    let (x, cache) = soft_attention(q.view(), v.view(), &landmark, &config).unwrap();
    close(&cache.landmarks().unwrap(), &read(name, "landmarks"), 1e-6);
    close(&cache.kernel().unwrap(), &read(name, "a"), 1e-6);
    close(&cache.inverse().unwrap(), &read(name, "ainv"), value);
    close(&x, &read(name, "x"), value);
    let grads = soft_attention_backward(&cache, dx.view()).unwrap();
    close(&grads.dq, &read(name, "dq"), slope);
    close(&grads.dv, &read(name, "dv"), slope);
    if let (Landmark::Conv { .. }, Some(conv)) = (landmark, &grads.d_conv_w) {
        close(conv, &read(name, "dconv_w"), slope);
        for (got, file) in [(&grads.d_gamma, "dln_g"), (&grads.d_beta, "dln_b")] {
            let got = got.as_ref().expect("a gradient");
            close(&Tensor::from_slice([got.len()], got).unwrap(), &read(name, file), slope);
        }
    } else {
        assert!(grads.d_conv_w.is_none() && settings["landmark"] != "conv");
    }
    assert_eq!(grads.d_local.is_some(), local.is_some());
    if let Some(got) = &grads.d_local {
        close(got, &read(name, "ddw"), slope);
    }
    if name == "avgpool_ridge_ill" {
        let residual = cache.reports()[0].residual;
        assert!(residual > 0.5 && residual < 0.7, "not converged, by definition: {residual}");
    }
}

#[test]
fn results_and_gradients_on_every_level() {
    each_isa(|isa| CASES.iter().for_each(|name| case(name, isa)));
}

#[test]
fn inverses_step_for_step() {
    let a: Tensor<f64, 2> = golden_tensor("soft/inverse/a.npy");
    let cases = [
        ("newton_ridge", Inverse::Newton { iters: 20, ridge: 0.01 }, 1e-12),
        ("newton_ridge_8", Inverse::Newton { iters: 8, ridge: 0.01 }, 1e-13),
        ("newton_backtrack", Inverse::NewtonBacktrack { iters: 20 }, 1e-12),
        ("exact", Inverse::Exact { ridge: 0.01 }, 1e-11),
    ];
    for (name, inverse, tol) in cases {
        let want: Tensor<f64, 2> = golden_tensor(&format!("soft/inverse/{name}.npy"));
        let (y, report) = newton_inverse(a.view(), &inverse).unwrap();
        let size = want.as_slice().iter().fold(0.0f64, |m, x| m.max(x.abs()));
        assert_close(y.as_slice(), want.as_slice(), Tol::abs(tol * size));
        let steps = if name == "exact" {
            0
        } else if name == "newton_ridge_8" {
            8
        } else {
            20
        };
        assert_eq!(report.iters, steps, "{name}");
        assert_eq!(report.residual < 1e-3, name == "exact", "{name}: {}", report.residual);
    }
}
