//! Training on the digits: a network whose features are then frozen, and adapters on them.

use anyhow::Result;
use kc_core::optim::Adam;
use kc_core::{KcRng, Tensor, TensorView, math};
use kc_features::FeatureMap;
use kc_features::snnk::{Adapter, Bundle, Bundled};
use kc_gemm::gemm;
use kc_testing::golden_tensor;

/// Rows for training; the rest are for testing.
const TRAIN: usize = 1297;

/// Rows with their labels.
pub(crate) struct Labelled {
    pub(crate) x: Tensor<f32, 2>,
    pub(crate) labels: Vec<usize>,
}

/// The digits, pixels from 0 to 1: training part and test part.
pub(crate) fn digits() -> Result<[Labelled; 2]> {
    let x: Tensor<u8, 2> = golden_tensor("digits/digits_x.npy");
    let y: Tensor<i32, 1> = golden_tensor("digits/digits_y.npy");
    let part = |rows: std::ops::Range<usize>| -> Result<Labelled> {
        let labels = y.as_slice()[rows.clone()].iter().map(|&y| y as usize).collect();
        let x = Tensor::from_fn([rows.len(), 64], |[i, j]| f32::from(x[[rows.start + i, j]]) / 16.0)?;
        Ok(Labelled { x, labels })
    };
    Ok([part(0..TRAIN)?, part(TRAIN..y.len())?])
}

/// `x W^T + b`, trained by Adam.
pub(crate) struct Linear {
    w: Tensor<f32, 2>,
    b: Vec<f32>,
    adam: [Adam; 2],
}

impl Linear {
    pub(crate) fn new(inputs: usize, outputs: usize, scale: f64, rate: f64, rng: &mut KcRng) -> Result<Self> {
        let bound = scale * (inputs as f64).powf(-0.5);
        let w = Tensor::from_fn([outputs, inputs], |_| (bound * (2.0 * rng.uniform() - 1.0)) as f32)?;
        let adam = [Adam::new(w.len(), rate), Adam::new(outputs, rate)];
        Ok(Self { w, b: vec![0.0; outputs], adam })
    }

    pub(crate) fn n_params(&self) -> usize {
        self.w.len() + self.b.len()
    }

    fn forward(&self, x: TensorView<'_, f32, 2>) -> Result<Tensor<f32, 2>> {
        let mut y = gemm(x, self.w.view().transposed())?;
        for row in y.as_mut_slice().chunks_exact_mut(self.b.len()) {
            row.iter_mut().zip(&self.b).for_each(|(y, b)| *y += b);
        }
        Ok(y)
    }

    /// One step; the gradient by `x`.
    fn step(&mut self, x: TensorView<'_, f32, 2>, dy: &Tensor<f32, 2>) -> Result<Tensor<f32, 2>> {
        let dx = gemm(dy.view(), self.w.view())?;
        let dw = gemm(dy.view().transposed(), x)?;
        let mut db = vec![0.0f32; self.b.len()];
        for row in dy.as_slice().chunks_exact(db.len()) {
            db.iter_mut().zip(row).for_each(|(d, y)| *d += y);
        }
        self.adam[0].step(self.w.as_mut_slice(), dw.as_slice())?;
        self.adam[1].step(&mut self.b, &db)?;
        Ok(dx)
    }
}

fn rectify(x: &mut Tensor<f32, 2>) {
    x.as_mut_slice().iter_mut().for_each(|x| *x = x.max(0.0));
}

fn rectify_gradient(y: &Tensor<f32, 2>, dy: &mut Tensor<f32, 2>) {
    dy.as_mut_slice().iter_mut().zip(y.as_slice()).for_each(|(d, y)| *d = if *y > 0.0 { *d } else { 0.0 });
}

/// From outputs to the gradient of the mean cross-entropy, in place.
fn cross_entropy(outputs: &mut Tensor<f32, 2>, labels: &[usize]) -> Result<()> {
    let [n, classes] = outputs.shape();
    for (row, &label) in outputs.as_mut_slice().chunks_exact_mut(classes).zip(labels) {
        let scores = row.to_vec();
        math::softmax(&scores, row)?;
        row[label] -= 1.0;
        row.iter_mut().for_each(|p| *p /= n as f32);
    }
    Ok(())
}

pub(crate) fn accuracy(outputs: &Tensor<f32, 2>, labels: &[usize]) -> f64 {
    let rows = outputs.as_slice().chunks_exact(outputs.shape()[1]);
    let right = rows.zip(labels).filter(|(row, label)| math::arg_max(row) == Some(**label)).count();
    right as f64 / labels.len() as f64
}

/// What a network was trained for before it was frozen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Task {
    /// The ten digits.
    Digits,
    /// Small digits (0 to 4) against large ones: features that know little about the ten classes.
    Halves,
}

/// The features of two layers of rectified units, trained for `task`.
pub(crate) fn frozen_features(
    task: Task,
    width: usize,
    steps: usize,
    rng: &mut KcRng,
) -> Result<[Labelled; 2]> {
    let [train, test] = digits()?;
    let class = |&label: &usize| if task == Task::Digits { label } else { usize::from(label > 4) };
    let labels: Vec<usize> = train.labels.iter().map(class).collect();
    let mut layers = [Linear::new(64, width, 1.7, 3e-3, rng)?, Linear::new(width, width, 1.7, 3e-3, rng)?];
    let mut head = Linear::new(width, 10, 1.0, 3e-3, rng)?;
    let run = |layers: &[Linear; 2], x: &Tensor<f32, 2>| -> Result<[Tensor<f32, 2>; 2]> {
        let mut a = layers[0].forward(x.view())?;
        rectify(&mut a);
        let mut b = layers[1].forward(a.view())?;
        rectify(&mut b);
        Ok([a, b])
    };
    for _ in 0..steps {
        let [a, b] = run(&layers, &train.x)?;
        let mut y = head.forward(b.view())?;
        cross_entropy(&mut y, &labels)?;
        let mut db = head.step(b.view(), &y)?;
        rectify_gradient(&b, &mut db);
        let mut da = layers[1].step(a.view(), &db)?;
        rectify_gradient(&a, &mut da);
        layers[0].step(train.x.view(), &da)?;
    }
    let features = |part: Labelled| -> Result<Labelled> {
        let [_, b] = run(&layers, &part.x)?;
        Ok(Labelled { x: b, labels: part.labels })
    };
    Ok([features(train)?, features(test)?])
}

/// What is trained beside the frozen network.
pub(crate) enum Trained {
    /// Nothing but the head.
    Nothing,
    /// `x + Up relu(Down x)`
    Bottleneck { down: Box<Linear>, up: Box<Linear> },
    /// Ours.
    Snnk { adapter: Box<Adapter<f32>>, adams: Vec<Adam> },
}

impl Trained {
    pub(crate) fn bottleneck(d: usize, r: usize, rate: f64, rng: &mut KcRng) -> Result<Self> {
        let down = Box::new(Linear::new(d, r, 1.0, rate, rng)?);
        Ok(Trained::Bottleneck { down, up: Box::new(Linear::new(r, d, 0.0, rate, rng)?) })
    }

    pub(crate) fn snnk(adapter: Adapter<f32>, rate: f64) -> Self {
        let adams = adapter.parameters().iter().map(|(_, values)| Adam::new(values.len(), rate)).collect();
        Trained::Snnk { adapter: Box::new(adapter), adams }
    }

    pub(crate) fn n_params(&self) -> usize {
        match self {
            Trained::Nothing => 0,
            Trained::Bottleneck { down, up } => down.n_params() + up.n_params(),
            Trained::Snnk { adapter, .. } => adapter.n_params(),
        }
    }

    fn forward(&self, x: &Tensor<f32, 2>) -> Result<(Option<Tensor<f32, 2>>, Tensor<f32, 2>)> {
        Ok(match self {
            Trained::Nothing => (None, x.clone()),
            Trained::Bottleneck { down, up } => {
                let mut hidden = down.forward(x.view())?;
                rectify(&mut hidden);
                let mut y = up.forward(hidden.view())?;
                y.as_mut_slice().iter_mut().zip(x.as_slice()).for_each(|(y, x)| *y += x);
                (Some(hidden), y)
            }
            Trained::Snnk { adapter, .. } => (None, adapter.forward(x.view())?),
        })
    }

    fn step(
        &mut self,
        x: &Tensor<f32, 2>,
        hidden: Option<Tensor<f32, 2>>,
        dy: &Tensor<f32, 2>,
    ) -> Result<()> {
        match self {
            Trained::Nothing => {}
            Trained::Bottleneck { down, up } => {
                if let Some(hidden) = hidden {
                    let mut dh = up.step(hidden.view(), dy)?;
                    rectify_gradient(&hidden, &mut dh);
                    down.step(x.view(), &dh)?;
                }
            }
            Trained::Snnk { adapter, adams } => {
                let gradients = adapter.backward(x.view(), dy.view())?;
                adapter.update(|i, values| adams[i].step(values, &gradients.parameters[i].1))?;
            }
        }
        Ok(())
    }
}

/// Trains `trained` and a linear head on the ten classes; the accuracy on the test part.
pub(crate) fn adapt(
    [train, test]: &[Labelled; 2],
    trained: &mut Trained,
    steps: usize,
    rate: f64,
    rng: &mut KcRng,
) -> Result<f64> {
    let mut head = Linear::new(train.x.shape()[1], 10, 1.0, rate, rng)?;
    for _ in 0..steps {
        let (hidden, a) = trained.forward(&train.x)?;
        let mut y = head.forward(a.view())?;
        cross_entropy(&mut y, &train.labels)?;
        let da = head.step(a.view(), &y)?;
        trained.step(&train.x, hidden, &da)?;
    }
    let (_, a) = trained.forward(&test.x)?;
    Ok(accuracy(&head.forward(a.view())?, &test.labels))
}

/// The mean squared error of a network on targets.
pub(crate) fn mean_square(network: &Bundled<f64>, x: &Tensor<f64, 2>, y: &Tensor<f64, 2>) -> Result<f64> {
    let p = network.forward(x.view())?;
    let square = p.as_slice().iter().zip(y.as_slice()).map(|(p, y)| (p - y) * (p - y));
    Ok(square.sum::<f64>() / y.len() as f64)
}

/// Adam on the parameter of a bundled network, from zero: the loss that `steps` steps on all rows reach.
pub(crate) fn adam_on_psi(
    bundle: &Bundle<f64>,
    x: &Tensor<f64, 2>,
    y: &Tensor<f64, 2>,
    steps: usize,
    rate: f64,
) -> Result<f64> {
    // The features do not change: made once, which is kind to Adam.
    let f = bundle.apply(x.view())?;
    let mut psi = Tensor::<f64, 2>::zeros([y.shape()[1], bundle.width()])?;
    let mut adam = Adam::new(psi.len(), rate);
    for _ in 0..steps {
        let mut error = gemm(f.view(), psi.view().transposed())?;
        let scale = 2.0 / y.len() as f64;
        error.as_mut_slice().iter_mut().zip(y.as_slice()).for_each(|(e, y)| *e = (*e - y) * scale);
        let gradient = gemm(error.view().transposed(), f.view())?;
        adam.step(psi.as_mut_slice(), gradient.as_slice())?;
    }
    mean_square(&Bundled::new(bundle, psi)?, x, y)
}
