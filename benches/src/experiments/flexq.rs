//! FlexQ: what six bits cost and save, which layers need eight, and the time of products.

use anyhow::Context as _;
use kc_core::{Tensor, TensorView};
use kc_quant::Group;
use kc_quant::flexq::{
    Activations, FlexLinear, KernelChoice, LayerSample, Policy, QuantMatrix, QuantSpec, Scheme, Sensitivity,
    plan, sensitivity,
};
use kc_testing::{golden_json, golden_tensor};

use super::{Claim, Ctx, Figure, Table, Verdict};
use crate::low_bit::{self, Entry, Float, Layer};
use crate::minilm::{MiniLm, Texts};

/// Layers of MiniLM-L6; the last has three columns of x 30 times as large.
const SLICES: [(&str, &str); 4] =
    [("l4_up", "l4_up"), ("l3_down", "l3_down"), ("l2_key", "l2_key"), ("l2_key_outlier", "l2_key")];

pub(crate) fn run(ctx: &mut Ctx) -> anyhow::Result<()> {
    slices(ctx)?;
    memory(ctx)?;
    model(ctx)?;
    products(ctx)
}

/// Which slices need 8 bits.
fn slices(ctx: &mut Ctx) -> anyhow::Result<()> {
    ctx.step("sensitivity of slices of MiniLM-L6");
    let read = |(x, w): &(&str, &str)| -> (Tensor<f32, 2>, Tensor<f32, 2>) {
        let file = |name: &str, what: &str| golden_tensor(&format!("quant_minilm/{name}_{what}.npy"));
        (file(x, "x"), file(w, "w"))
    };
    let tensors: Vec<_> = SLICES.iter().map(read).collect();
    let samples: Vec<LayerSample<'_>> = SLICES
        .iter()
        .zip(&tensors)
        .map(|((name, _), (x, w))| LayerSample { name, w: w.view(), x: x.view() })
        .collect();
    let rows = sensitivity(&samples, &QuantSpec::default())?;
    let chosen = plan(&rows, 6, &Policy::default())?;
    let mut table = Table::new(
        "Relative output error of slices of MiniLM-L6, 6-bit weights in groups of 128",
        &["layer", "A6", "A8", "A16", "A6 / A16", "gets"],
    );
    for row in &rows {
        let bits = chosen.layers.get(&row.name).map_or(0, |l| l.abits);
        table.row([
            row.name.as_str().into(),
            row.e6.into(),
            row.e8.into(),
            row.e16.into(),
            (row.e6 / row.e16).into(),
            format!("A{bits}").into(),
        ]);
    }
    ctx.table(table);
    let most = rows.iter().max_by(|a, b| (a.e6 / a.e16).total_cmp(&(b.e6 / b.e16)));
    let name = most.map_or("", |row| row.name.as_str());
    let moved = chosen.layers.get("l2_key").is_some_and(|l| l.abits == 6)
        && chosen.layers.get("l2_key_outlier").is_some_and(|l| l.abits == 8);
    ctx.claim(Claim {
        statement: "outliers in its inputs make a layer sensitive to 6-bit activations".into(),
        paper: "down projections of Llama".into(),
        here: format!("most sensitive: {name}").into(),
        unit: "",
        verdict: Verdict::of_cases(usize::from(moved), 1),
        setup: "a key projection of MiniLM-L6, without and with three columns 30 times as large; threshold 2"
            .into(),
    });
    Ok(())
}

/// Bytes of packed weights.
fn memory(ctx: &mut Ctx) -> anyhow::Result<()> {
    let w = low_bit::weights(ctx, [512, 4096])?;
    let bits = |bits| -> anyhow::Result<f64> {
        let spec = QuantSpec { bits, ..QuantSpec::default() };
        let layer = FlexLinear::new(&QuantMatrix::quantize(w.view(), &spec)?, None, KernelChoice::Auto)?;
        Ok(layer.bytes() as f64)
    };
    let ratio = bits(8)? / bits(6)?;
    ctx.claim(Claim {
        statement: "packed 6-bit weights take less memory than INT8".into(),
        paper: 1.21.into(),
        here: ratio.into(),
        unit: "x",
        verdict: Verdict::at_least(ratio, 1.21, 1.0),
        setup: "bytes held by packed layers, groups of 128 with f32 scales; the paper measures whole models"
            .into(),
    });
    Ok(())
}

/// A way to quantise all layers of the model.
struct Setting {
    /// The name in the fixture.
    name: &'static str,
    wbits: u8,
    abits: u8,
    group: Group,
    scheme: Scheme,
}

impl Setting {
    const fn new(name: &'static str, wbits: u8, abits: u8) -> Self {
        Setting { name, wbits, abits, group: Group::Size(128), scheme: Scheme::Sym }
    }

    fn spec(&self) -> QuantSpec {
        QuantSpec { bits: self.wbits, group: self.group, scheme: self.scheme, ..QuantSpec::default() }
    }
}

const STATEMENTS: [&str; 2] = [
    "6-bit weights and activations are close to full precision, and closer than 4 bits",
    "8-bit activations in the layers that are measured to be sensitive are better than by the list of names",
];

/// The whole model.
fn model(ctx: &mut Ctx) -> anyhow::Result<()> {
    let setup = "MiniLM-L6, 36 linear layers, 48 sentences, 1 - mean cosine of embeddings to full precision";
    if !ctx.peers() {
        for statement in STATEMENTS {
            ctx.claim(Claim {
                statement: statement.into(),
                paper: "perplexity +0.05 to +0.1".into(),
                here: "-".into(),
                unit: "",
                verdict: Verdict::not_run("--peers, which installs the model"),
                setup: setup.into(),
            });
        }
        return Ok(());
    }
    ctx.step("MiniLM-L6 with quantised layers");
    let model = MiniLm::load()?;
    let texts = Texts::new(&Texts::sentences()?);
    let mut inputs: Vec<Tensor<f32, 2>> = Vec::new();
    let exact = model.embed(&texts, |index, x| {
        inputs.push(x.to_tensor()?);
        model.plain(index, x)
    })?;
    let settings = [
        Setting { group: Group::Row, ..Setting::new("W8A8 per-row sym", 8, 8) },
        Setting::new("flexq W6A8 g128 sym", 6, 8),
        Setting::new("flexq W6A6 g128 sym", 6, 6),
        Setting { scheme: Scheme::Asym, ..Setting::new("flexq W6A6 g128 asym", 6, 6) },
        Setting { group: Group::Row, ..Setting::new("flexq W6A6 per-row sym", 6, 6) },
        Setting::new("W4A8 g128 sym", 4, 8),
        Setting::new("W4A4 g128 sym", 4, 4),
    ];
    let published = golden_json("quant_minilm/results.json");
    let mut table = Table::new(
        "MiniLM-L6: 1 - mean cosine of embeddings to full precision",
        &["method", "here", "fixture", "8-bit share"],
    );
    let mut row = |name: &str, loss: f64, share: Figure| {
        let want = published[name]["mean_cos"].as_f64().map_or_else(|| "-".into(), |c| Figure::from(1.0 - c));
        table.row([name.into(), loss.into(), want, share]);
    };
    let mut losses = std::collections::BTreeMap::new();
    for setting in &settings {
        let loss = embed(&model, &texts, &exact, &setting.spec(), |_| setting.abits)?;
        row(setting.name, loss, "-".into());
        losses.insert(setting.name, loss);
    }
    let measured = measure(&model, &inputs)?;
    for (name, policy) in [
        ("flexq mixed policy=names", Policy::published_names()),
        ("flexq mixed policy=budget", Policy::Budget(0.34)),
        ("flexq mixed policy=threshold", Policy::Threshold(2.0)),
    ] {
        let chosen = plan(&measured, 6, &policy)?;
        let bits = |index: usize| chosen.layers.get(&layer_name(index)).map_or(6, |l| l.abits);
        let loss = embed(&model, &texts, &exact, &QuantSpec::default(), bits)?;
        row(name, loss, chosen.share_of_8_bits().into());
        losses.insert(name, loss);
    }
    ctx.table(table);
    let loss = |name: &str| losses.get(name).copied().context("a method that ran");
    let (six, four) = (loss("flexq W6A6 g128 sym")?, loss("W4A4 g128 sym")?);
    ctx.claim(Claim {
        statement: STATEMENTS[0].into(),
        paper: "perplexity +0.05 to +0.1".into(),
        here: format!("{six:.2e}; 4 bits {four:.2e}").into(),
        unit: "",
        verdict: Verdict::at_most(six, 1e-2, four),
        setup: setup.into(),
    });
    let (names, budget) = (loss("flexq mixed policy=names")?, loss("flexq mixed policy=budget")?);
    ctx.claim(Claim {
        statement: STATEMENTS[1].into(),
        paper: "the list of names".into(),
        here: format!("{budget:.2e} against {names:.2e}").into(),
        unit: "",
        verdict: Verdict::of_cases(usize::from(budget < names), 1),
        setup: format!("{setup}; both have 8 bits in a third of the multiplications"),
    });
    Ok(())
}

fn layer_name(index: usize) -> String {
    const PARTS: [&str; 6] = [
        "attention.self.query",
        "attention.self.key",
        "attention.self.value",
        "attention.output.dense",
        "intermediate.dense",
        "output.dense",
    ];
    format!("encoder.layer.{}.{}", index / 6, PARTS[index % 6])
}

fn measure(model: &MiniLm, inputs: &[Tensor<f32, 2>]) -> anyhow::Result<Vec<Sensitivity>> {
    let names: Vec<String> = (0..inputs.len()).map(layer_name).collect();
    let layers = model.linear().zip(inputs).zip(&names);
    let samples: Vec<LayerSample<'_>> = layers
        .map(|((linear, x), name)| LayerSample { name, w: linear.weight.view(), x: x.view() })
        .collect();
    Ok(sensitivity(&samples, &QuantSpec::default())?)
}

/// 1 - mean cosine with all layers quantised.
fn embed(
    model: &MiniLm,
    texts: &Texts,
    exact: &Tensor<f32, 2>,
    spec: &QuantSpec,
    abits: impl Fn(usize) -> u8,
) -> anyhow::Result<f64> {
    let layer = |linear: &crate::minilm::Linear| {
        let q = QuantMatrix::quantize(linear.weight.view(), spec)?;
        FlexLinear::new(&q, Some(&linear.bias), KernelChoice::Auto)
    };
    let layers = model.linear().map(layer).collect::<kc_core::Result<Vec<_>>>()?;
    let apply = |index: usize, x: TensorView<'_, f32, 2>| Ok(layers[index].forward(x, abits(index))?);
    let x = model.embed(texts, apply)?;
    let products = x.as_slice().iter().zip(exact.as_slice()).map(|(a, b)| f64::from(*a) * f64::from(*b));
    Ok(1.0 - products.sum::<f64>() / x.shape()[0] as f64)
}

/// A layer with activations of so many bits.
struct Flex {
    layer: FlexLinear,
    abits: u8,
    codes: Activations,
}

impl Flex {
    fn entry(
        name: &'static str,
        w: &Tensor<f32, 2>,
        [wbits, abits]: [u8; 2],
        choice: KernelChoice,
    ) -> anyhow::Result<Entry> {
        let spec = QuantSpec { bits: wbits, ..QuantSpec::default() };
        let layer = FlexLinear::new(&QuantMatrix::quantize(w.view(), &spec)?, None, choice)?;
        Ok(Entry { name, layer: Box::new(Flex { layer, abits, codes: Activations::new() }) })
    }
}

impl Layer for Flex {
    fn run(&mut self, x: &Tensor<f32, 2>, y: &mut Tensor<f32, 2>) -> kc_core::Result<()> {
        self.layer.forward_into(x.view(), self.abits, y.view_mut(), &mut self.codes)
    }

    fn bytes(&self) -> usize {
        self.layer.bytes()
    }
}

/// The paper's kernel, ours, and those of other programs.
fn products(ctx: &mut Ctx) -> anyhow::Result<()> {
    for (shape, tokens, threads) in low_bit::cases(ctx) {
        let w = low_bit::weights(ctx, shape)?;
        let mut entries = vec![
            Flex::entry("kc W6A6", &w, [6, 6], KernelChoice::Auto)?,
            Flex::entry("kc W6A8", &w, [6, 8], KernelChoice::Auto)?,
            Flex::entry("kc W4A8", &w, [4, 8], KernelChoice::Auto)?,
            Flex::entry("kc W8A8", &w, [8, 8], KernelChoice::Auto)?,
            Entry { name: "kc f32", layer: Box::new(Float(w.clone())) },
        ];
        let ours = low_bit::race(ctx, &w, tokens, threads, &mut entries)?;
        if threads == 1 && tokens <= 16 && shape[0] <= 4096 {
            let Entry { layer: mut planes, .. } =
                Flex::entry("kc W6A6 by bit planes", &w, [6, 6], KernelChoice::Popcount)?;
            let mut x = vec![0.0; tokens * shape[1]];
            ctx.rng(200 + tokens as u64).fill_normal(&mut x);
            let x = Tensor::from_slice([tokens, shape[1]], &x)?;
            let mut y = Tensor::zeros([tokens, shape[0]])?;
            let time = ctx.time(1, || {
                std::hint::black_box(planes.run(&x, &mut y)).ok();
            })?;
            let ratio = time.min / ours.min;
            ctx.claim(Claim {
                statement: format!("bytes are faster than bit planes at {tokens} tokens"),
                paper: "the paper's kernel is bit planes".into(),
                here: ratio.into(),
                unit: "x",
                verdict: Verdict::at_least(ratio, 1.0, 0.5),
                setup: format!("W6A6, {} x {}, one thread, minima", shape[0], shape[1]),
            });
        }
    }
    Ok(())
}
