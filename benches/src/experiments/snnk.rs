//! SNNK: parameters against accuracy, layer times, errors against the number of features, the closed form.

mod train;

use std::hint::black_box;

use anyhow::Context as _;
use kc_core::{AnyTensor, KcRng, Tensor, TensorView};
use kc_features::arc_cosine::arccos_kernel;
use kc_features::fourier::{Fourier, Kernel};
use kc_features::maclaurin::Series;
use kc_features::snnk::{
    Adapter, AdapterConfig, Bundle, Map, Nonlinearity, SnnkConfig, SnnkLayer, exact_layer, fit_closed_form,
};
use kc_features::universal::Spectrum;
use kc_features::{Draw, FeatureMap, Scaling};
use kc_gemm::{PackedB, gemm, gemm_packed_into};
use serde_json::{Value, json};

use self::train::{Task, Trained, adam_on_psi, adapt, digits, frozen_features, mean_square};
use super::{
    Axis, Claim, Comparison, Ctx, Plot, PythonSide, Rival, Series as Line, Table, Verdict, Work, slope,
};

/// Adam's step length for adapters and heads.
const RATE: f64 = 3e-3;

pub(crate) fn run(ctx: &mut Ctx) -> anyhow::Result<()> {
    parameters(ctx)?;
    adapters(ctx)?;
    layers(ctx)?;
    errors(ctx)?;
    closed_form(ctx)?;
    kernels(ctx)
}

/// Parameters at the paper's sizes.
fn parameters(ctx: &mut Ctx) -> anyhow::Result<()> {
    ctx.step("parameter counts");
    let (d, r, m) = (768, 48, 16);
    let bottleneck = 2 * r * d + r + d;
    let config = AdapterConfig {
        layer: SnnkConfig { features: m, ..SnnkConfig::default() },
        ..AdapterConfig::default()
    };
    let ours = Adapter::<f32>::init(d, &config)?.n_params();
    let ratio = bottleneck as f64 / ours as f64;
    ctx.claim(Claim {
        statement: "adapters with up to 5 times fewer trained parameters".into(),
        paper: 5.0.into(),
        here: format!("{ratio:.1} ({bottleneck} against {ours})").into(),
        unit: "x",
        verdict: Verdict::at_least(ratio, 5.0, 2.0),
        setup: format!("d = {d}: bottleneck of {r} against {m} features with a modulating vector"),
    });
    Ok(())
}

/// Adapters on frozen features of the digits.
fn adapters(ctx: &mut Ctx) -> anyhow::Result<()> {
    let (width, steps, seeds) = (128, 300, ctx.pick(1, 5));
    let snnk = |features, bottleneck, norm_before, seed| -> anyhow::Result<Trained> {
        let layer = SnnkConfig { features, seed, ..SnnkConfig::default() };
        let config = AdapterConfig { layer, bottleneck, norm_before, ..AdapterConfig::default() };
        Ok(Trained::snnk(Adapter::init(width, &config)?, RATE))
    };
    type Make<'a> = &'a dyn Fn(u64) -> anyhow::Result<Trained>;
    let cases: [(&str, Make<'_>); 6] = [
        ("none", &|_| Ok(Trained::Nothing)),
        ("bottleneck of 24", &|seed| Trained::bottleneck(width, 24, RATE, &mut KcRng::new(seed, 9))),
        ("SNNK of 16, vector, normalised inputs", &|seed| snnk(16, None, true, seed)),
        ("SNNK of 16, vector", &|seed| snnk(16, None, false, seed)),
        ("SNNK of 8, vector", &|seed| snnk(8, None, false, seed)),
        ("SNNK of 16, Up of 8", &|seed| snnk(16, Some(8), false, seed)),
    ];
    let mut table = Table::new(
        format!(
            "Adapters of {width} frozen features, ten digits, {steps} Adam steps, means of {seeds} seeds"
        ),
        &["features trained for", "adapter", "parameters", "test accuracy, %"],
    );
    for (task, name) in [(Task::Digits, "ten digits"), (Task::Halves, "0-4 against 5-9")] {
        ctx.step(format!("adapters on features trained for {name}"));
        let features = frozen_features(task, width, 300, &mut ctx.rng(1))?;
        let mut found = Vec::new();
        for (adapter, make) in cases {
            let (mut sum, mut parameters) = (0.0, 0);
            for seed in 0..seeds {
                let mut trained = make(seed)?;
                parameters = trained.n_params();
                sum += adapt(&features, &mut trained, steps, RATE, &mut KcRng::new(seed, 10))?;
            }
            let accuracy = 100.0 * sum / seeds as f64;
            table.row([name.into(), adapter.into(), (parameters as f64).into(), accuracy.into()]);
            found.push((accuracy, parameters));
        }
        let [(head, _), (bottleneck, many), (ours, few), ..] = found[..] else {
            anyhow::bail!("three cases and more")
        };
        ctx.claim(Claim {
            statement: format!("competitive accuracy with fewer trained parameters, features of {name}"),
            paper: "as a bottleneck adapter".into(),
            here: format!("{ours:.1} % with {few}, {bottleneck:.1} % with {many}; {head:.1} % without").into(),
            unit: "",
            verdict: Verdict::at_most(bottleneck - ours, 1.0, 3.0),
            setup: format!(
                "two layers of {width} units trained for {name} and frozen; adapter and head trained on the ten classes; \
                 500 test rows, so a point is about one standard error; the paper's tasks are GLUE and images"
            ),
        });
    }
    ctx.table(table);
    Ok(())
}

/// Normal numbers with rows of length about 1.
fn normals(rng: &mut KcRng, rows: usize, columns: usize) -> anyhow::Result<Tensor<f32, 2>> {
    let mut out = Tensor::zeros([rows, columns])?;
    rng.fill_normal(out.as_mut_slice());
    let scale = (columns as f32).powf(-0.5);
    out.as_mut_slice().iter_mut().for_each(|x| *x *= scale);
    Ok(out)
}

fn relative(got: &[f32], want: &[f64]) -> f64 {
    kc_testing::relative_error(got, want)
}

/// The layer against the dense one and the same products elsewhere.
fn layers(ctx: &mut Ctx) -> anyhow::Result<()> {
    let (n, d, out) = (ctx.pick(512, 2048), 768, 3072);
    let mut rng = ctx.rng(2);
    let (x, w) = (normals(&mut rng, n, d)?, normals(&mut rng, out, d)?);
    let bias = Tensor::<f32, 1>::zeros([out])?;
    let dense = PackedB::pack(w.view().transposed())?;
    let (mut y, mut z) = (Tensor::<f32, 2>::zeros([n, out])?, Tensor::<f32, 2>::zeros([n, out])?);
    let mut points = Vec::new();
    let mut at_64 = None;
    for m in [32, 64, 128, 256] {
        ctx.step(format!("layers with {m} features"));
        let config = SnnkConfig { features: m, ..SnnkConfig::default() };
        let layer = SnnkLayer::from_weights(w.view(), None, &config)?;
        let kc_features::snnk::Features::Relu(relu) = layer.map().features() else { anyhow::bail!("ReLU") };
        let g = relu.projection().to_matrix()?;
        let (phi, psi) = (layer.map().apply(x.view())?, layer.psi().to_tensor()?);
        let exact = kc_gemm::reference::gemm(phi.view().slice(0, 0..8)?, psi.view().transposed())?;
        let ours = layer.forward(x.view())?;
        let our_error = relative(&ours.as_slice()[..8 * out], exact.as_slice());
        let arrays: [(&str, AnyTensor); 5] = [
            ("x", x.clone().into_any()),
            ("w", w.clone().into_any()),
            ("b", bias.clone().into_any()),
            ("g", g.into_any()),
            ("psi", psi.into_any()),
        ];
        let arrays: Vec<(&str, &AnyTensor)> = arrays.iter().map(|(name, any)| (*name, any)).collect();
        let judge = |found: &crate::peers::Arrays| {
            let Some(y) = found.get("y") else { return Ok(f64::NAN) };
            Ok(relative(&y.to_f32::<2>("y")?.as_slice()[..8 * out], exact.as_slice()))
        };
        let rival = Rival::new("kc-gemm, dense + ReLU", env!("CARGO_PKG_VERSION"), || {
            let done = gemm_packed_into(1.0, x.view(), &dense, 0.0, z.view_mut());
            z.as_mut_slice().iter_mut().for_each(|x| *x = x.max(0.0));
            black_box(done).ok();
        });
        let timing = ctx.compare(Comparison {
            case: format!("SNNK {n} x {d} -> {m} -> {out}, ReLU features"),
            threads: 1,
            ours: &mut || {
                black_box(layer.forward_into(x.view(), y.view_mut())).ok();
            },
            our_error: Some(our_error),
            rivals: vec![rival],
            python: Some(PythonSide { arrays: &arrays, params: json!({ "what": "layer" }), error: &judge }),
            work: Some(Work::Flops(2.0 * (n * m * (d + out)) as f64)),
            note: "against f64 products of the same features; the dense layer is another function",
        })?;
        points.push((m as f64, timing.min * 1e3));
        if m == 64 {
            let ours = timing.min;
            let dense = ctx.time(1, || {
                let done = gemm_packed_into(1.0, x.view(), &dense, 0.0, y.view_mut());
                black_box(done).ok();
            })?;
            at_64 = Some(dense.min / ours);
        }
    }
    ctx.plot(Plot {
        title: format!("Time of a layer {d} -> {out}, {n} rows, one thread"),
        x: Axis::linear("features"),
        y: Axis::linear("ms"),
        series: vec![Line::line("SNNK, ReLU features", points)],
    });
    let ratio = at_64.context("64 features")?;
    ctx.claim(Claim {
        statement: "64 features make the layer at least 6 times faster than the dense product".into(),
        paper: "9.6 times fewer multiplications".into(),
        here: ratio.into(),
        unit: "x",
        verdict: Verdict::at_least(ratio, 6.0, 3.0),
        setup: format!(
            "{n} x {d} -> {out}, f32, one thread, kc-gemm's dense product without its ReLU, minima"
        ),
    });
    Ok(())
}

/// Rows of length 1.
fn units(rng: &mut KcRng, rows: usize, d: usize) -> anyhow::Result<Tensor<f64, 2>> {
    let mut out = Tensor::from_fn([rows, d], |_| rng.normal())?;
    for row in out.as_mut_slice().chunks_exact_mut(d) {
        let length = row.iter().map(|x| x * x).sum::<f64>().sqrt();
        row.iter_mut().for_each(|x| *x /= length);
    }
    Ok(out)
}

/// Root-mean-square errors against the number of features.
fn errors(ctx: &mut Ctx) -> anyhow::Result<()> {
    let d = 16;
    let mut rng = ctx.rng(3);
    let (x, w) = (units(&mut rng, 48, d)?, units(&mut rng, 48, d)?);
    // The same number of drawn features for every m, so that all errors are known equally well.
    let drawn = ctx.pick(1 << 14, 1 << 17);
    let urf = |spectrum| Nonlinearity::Universal { spectrum, split: 0.5, lam: 0.0, antithetic: false };
    let counts = [32, 64, 128, 256, 512, 1024];
    let of = |map: &Nonlinearity, draw: Draw| -> anyhow::Result<Vec<(f64, f64)>> {
        let exact = match map {
            Nonlinearity::Universal { spectrum, .. } => {
                exact_layer(|z| spectrum.value(z), x.view(), w.view(), None)?
            }
            _ => arccos_kernel(Default::default(), x.view(), w.view())?,
        };
        let mut points = Vec::new();
        for features in counts {
            let (mut sum, seeds) = (0.0, (drawn / features) as u64);
            for seed in 0..seeds {
                let config = SnnkConfig { map: map.clone(), features, draw, seed, normalize: None };
                let y = SnnkLayer::from_weights(w.view(), None, &config)?.forward(x.view())?;
                let square = y.as_slice().iter().zip(exact.as_slice()).map(|(y, e)| (y - e) * (y - e));
                sum += square.sum::<f64>() / exact.len() as f64;
            }
            points.push((features as f64, (sum / seeds as f64).sqrt()));
        }
        Ok(points)
    };
    let mut series = Vec::new();
    let mut table = Table::new(
        "Root-mean-square error of unit rows, d = 16",
        &["map", "m = 64", "m = 256", "m = 1024", "slope"],
    );
    let mut add = |name: &str, points: Vec<(f64, f64)>| {
        let exponent = slope(&points);
        table.row([name.into(), points[1].1.into(), points[3].1.into(), points[5].1.into(), exponent.into()]);
        series.push(Line::line(name, points.clone()));
        (exponent, points)
    };
    let mut held = 0;
    let maps = [
        ("relu", Nonlinearity::default()),
        ("cos", urf(Spectrum::Cos)),
        ("sin", urf(Spectrum::Sin)),
        ("sinc", urf(Spectrum::Sinc)),
    ];
    let mut independent = Vec::new();
    for (name, map) in &maps {
        ctx.step(format!("errors of {name} features"));
        let (exponent, points) = add(name, of(map, Draw::Independent)?);
        held += usize::from((exponent + 0.5).abs() <= 0.05);
        if *name == "relu" {
            independent = points;
        }
    }
    let (_, orthogonal) =
        add("relu, orthogonal", of(&Nonlinearity::default(), Draw::Orthogonal(Scaling::Chi))?);
    add("relu, Hadamard", of(&Nonlinearity::default(), Draw::Hadamard)?);
    ctx.table(table);
    ctx.plot(Plot {
        title: "Error against the number of features".into(),
        x: Axis::log("features"),
        y: Axis::log("root-mean-square error"),
        series,
    });
    ctx.claim(Claim {
        statement: "errors fall with the root of the number of features".into(),
        paper: "m^-1/2".into(),
        here: format!("slopes within 0.05 of -1/2 for {held} of {} maps", maps.len()).into(),
        unit: "",
        verdict: Verdict::of_cases(held, maps.len()),
        setup: format!(
            "relu, cos, sin, sinc; unit rows, d = {d}, m = 32 to 1024, {drawn} features drawn for each m"
        ),
    });
    let gains: Vec<f64> =
        independent.iter().zip(&orthogonal).map(|(a, b)| 100.0 * (1.0 - b.1 / a.1)).collect();
    let (least, below) =
        (gains.iter().copied().fold(f64::MAX, f64::min), gains.iter().filter(|g| **g >= 12.0).count());
    ctx.claim(Claim {
        statement: "orthogonal directions make the error of ReLU features at least 12 % smaller".into(),
        paper: "21 % at m = 256".into(),
        here: format!("{least:.0} % or more, {:.0} % at m = 256", gains[3]).into(),
        unit: "",
        verdict: Verdict::of_cases(below, gains.len()),
        setup: format!("unit rows, d = {d}, m = 32 to 1024, {drawn} features drawn for each m; the figure is another program's"),
    });
    Ok(())
}

/// The closed form against Adam on the same parameter.
fn closed_form(ctx: &mut Ctx) -> anyhow::Result<()> {
    ctx.step("closed form against Adam");
    let [train, _] = digits()?;
    let x = Tensor::from_fn(train.x.shape(), |i| f64::from(train.x[i]))?;
    let y = Tensor::from_fn([train.labels.len(), 10], |[i, k]| f64::from(u8::from(train.labels[i] == k)))?;
    let map = |d, features, seed| {
        Map::<f64>::draw(&SnnkConfig { features, seed, ..SnnkConfig::default() }, d, false)
    };
    let bundle = Bundle::new(vec![map(64, 128, 1)?, map(128, 128, 2)?])?;
    let mut table = Table::new(
        "A fully bundled network of two layers on the digits, one-hot targets",
        &["how", "mean squared error", "seconds"],
    );
    let mut best = (f64::INFINITY, f64::INFINITY);
    for (name, ridge) in [("closed form", 0.0), ("closed form, ridge 1e-8", 1e-8)] {
        let start = std::time::Instant::now();
        let network = fit_closed_form(&bundle, x.view(), y.view(), ridge)?;
        let seconds = start.elapsed().as_secs_f64();
        let loss = mean_square(&network, &x, &y)?;
        table.row([name.into(), loss.into(), seconds.into()]);
        if ridge == 0.0 {
            best = (loss, seconds);
        }
    }
    let steps = ctx.pick(200, 2000);
    let mut adam = (f64::INFINITY, 0.0);
    for rate in [1e-2, 1e-1] {
        let start = std::time::Instant::now();
        let loss = adam_on_psi(&bundle, &x, &y, steps, rate)?;
        let seconds = start.elapsed().as_secs_f64();
        table.row([format!("{steps} Adam steps, rate {rate}").into(), loss.into(), seconds.into()]);
        if loss < adam.0 {
            adam = (loss, seconds);
        }
    }
    ctx.table(table);
    let ratio = adam.1 / best.1;
    ctx.claim(Claim {
        statement: "the closed form is no worse than 2000 Adam steps, in a twentieth of the time".into(),
        paper: "closed form for the squared loss".into(),
        here: format!("loss {:.4e} against {:.4e}, {ratio:.0} times faster", best.0, adam.0).into(),
        unit: "",
        verdict: if best.0 <= adam.0 * (1.0 + 1e-9) {
            Verdict::at_least(ratio, 20.0, 1.0)
        } else {
            Verdict::at_least(0.0, 1.0, 1.0)
        },
        setup: format!("{steps} steps of the better of two rates, on features that are made once"),
    });
    Ok(())
}

/// Kernel approximation beside scikit-learn.
fn kernels(ctx: &mut Ctx) -> anyhow::Result<()> {
    let [train, _] = digits()?;
    let n = ctx.pick(600, 1297);
    let x = Tensor::from_fn([n, 64], |[i, j]| f64::from(train.x[[i, j]]))?;
    let product = gemm(x.view(), x.view().transposed())?;
    let (gamma, m, degree) = (0.05, 512, 2);

    ctx.step("features of the Gaussian kernel");
    let kernel = Tensor::from_fn([n, n], |[i, j]| {
        (-gamma * (product[[i, i]] + product[[j, j]] - 2.0 * product[[i, j]])).exp()
    })?;
    let (length, draw) = ((0.5f64 / gamma).sqrt(), Draw::Orthogonal(Scaling::Chi));
    let params = json!({ "what": "gauss", "gamma": gamma, "m": m });
    beside(ctx, format!("Gaussian kernel of {n} digits, {m} features"), &x, &kernel, params, &|| {
        Fourier::<f64>::draw(Kernel::Gauss, length, draw, m / 2, 64, 0)?.apply(x.view())
    })?;

    ctx.step("features of a polynomial kernel");
    let kernel = Tensor::from_fn([n, n], |[i, j]| (product[[i, j]] + 1.0).powi(degree))?;
    // (z + 1)^2 = 1 + 2 z + z^2: its terms of degrees 0 and 1 exactly.
    let config = SnnkConfig {
        map: Nonlinearity::Maclaurin { series: Series::Table(vec![1.0, 2.0, 1.0]), n_max: 2, h01: true },
        features: m - 65,
        ..SnnkConfig::default()
    };
    let params = json!({ "what": "polynomial", "degree": degree, "m": m });
    beside(ctx, format!("(x.y + 1)^{degree} of {n} digits, {m} features"), &x, &kernel, params, &|| {
        Map::<f64>::draw(&config, 64, false)?.apply(x.view())
    })
}

/// Features of the rows of `x`, whose products are nearly `kernel`, beside those of scikit-learn.
fn beside(
    ctx: &mut Ctx,
    case: String,
    x: &Tensor<f64, 2>,
    kernel: &Tensor<f64, 2>,
    params: Value,
    features: &(dyn Fn() -> kc_core::Result<Tensor<f64, 2>> + Sync),
) -> anyhow::Result<()> {
    let error = |phi: TensorView<'_, f64, 2>| -> anyhow::Result<f64> {
        let approximate = gemm(phi, phi.transposed())?;
        Ok(kc_testing::relative_error(approximate.as_slice(), kernel.as_slice()))
    };
    let any: AnyTensor = x.clone().into_any();
    ctx.compare(Comparison {
        case,
        threads: 1,
        ours: &mut || {
            black_box(features()).ok();
        },
        our_error: Some(error(features()?.view())?),
        rivals: Vec::new(),
        python: Some(PythonSide {
            arrays: &[("x", &any)],
            params,
            error: &|found| error(found.get("phi").context("no phi")?.to_f64::<2>("phi")?.view()),
        }),
        work: None,
        note: "relative error of the kernel matrix; drawing included. Nystroem sees the data, the others do not",
    })?;
    Ok(())
}
