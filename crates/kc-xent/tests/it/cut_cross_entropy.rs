//! The golden cases: losses, log-sum-exps, mean logits, gradients, blocks.

use kc_core::{Tensor, TensorView};
use kc_testing::{Tol, assert_close, each_isa, golden, golden_json, golden_tensor, relative_error};
use kc_xent::{
    Filter, Loss, Need, Reduction, Seeds, Upstream, XentConfig, XentForward, XentGrads, XentInput,
    linear_cross_entropy, linear_cross_entropy_backward, linear_cross_entropy_with_grad, reference,
};

pub(crate) struct Golden {
    name: &'static str,
    e: Tensor<f32, 3>,
    c: Tensor<f32, 2>,
    targets: Tensor<i64, 2>,
    bias: Option<Vec<f32>>,
    grad_out: Option<Vec<f32>>,
    pub(crate) config: XentConfig,
}

impl Golden {
    pub(crate) fn load(name: &'static str) -> Self {
        let file = |what: &str| format!("cut_cross_entropy/{name}/{what}.npy");
        let there = |what: &str| golden_dir(name).join(format!("{what}.npy")).exists();
        let vector = |what: &str| {
            there(what).then(|| {
                let any = kc_io::read(golden(&file(what))).expect("a file");
                let all: usize = any.shape().iter().product();
                let data: &[f32] = kc_core::bytemuck::cast_slice(any.bytes());
                assert_eq!(data.len(), all);
                data.to_vec()
            })
        };
        let case = golden_json(&format!("cut_cross_entropy/{name}/case.json"));
        let number = |key: &str| case[key].as_f64();
        let e = kc_io::read(golden(&file("e"))).expect("e");
        // Axes before the last two are sequences.
        let [t, d] = [e.shape()[e.rank() - 2], e.shape()[e.rank() - 1]];
        let b = e.len() / (t * d);
        let values: &[f32] = kc_core::bytemuck::cast_slice(e.bytes());
        let targets = kc_io::read(golden(&file("targets"))).expect("targets");
        let numbers: &[i64] = kc_core::bytemuck::cast_slice(targets.bytes());
        let e = Tensor::from_slice([b, t, d], values).expect("e");
        let targets = Tensor::from_slice([b, t], numbers).expect("targets");
        let config = XentConfig {
            softcap: number("softcap"),
            shift: case["shift"].as_u64().unwrap_or(0) as usize,
            reduction: match case["reduction"].as_str() {
                Some("sum") => Reduction::Sum,
                Some("none") => Reduction::None,
                _ => Reduction::Mean,
            },
            label_smoothing: number("label_smoothing").unwrap_or(0.0),
            z_loss: number("z_loss").unwrap_or(0.0),
            class_weights: vector("class_weights"),
            filter: number("filter_eps").map_or(Filter::None, Filter::Value),
            ..XentConfig::default()
        };
        Self {
            name,
            e,
            c: golden_tensor(&file("c")),
            targets,
            bias: vector("bias"),
            grad_out: vector("grad_out"),
            config,
        }
    }

    pub(crate) fn input(&self) -> XentInput<'_, f32> {
        let input = XentInput::batched(self.e.view(), self.c.view(), self.targets.view()).expect("an input");
        match &self.bias {
            Some(bias) => input.bias(bias).expect("a bias"),
            None => input,
        }
    }

    fn seeds(&self) -> Seeds<'_> {
        let loss = self.grad_out.as_ref().map_or(Upstream::Scalar(1.0), |g| Upstream::PerToken(g));
        Seeds { loss, lse: None }
    }

    fn numbers(&self, what: &str) -> Vec<f64> {
        let any =
            kc_io::read(golden(&format!("cut_cross_entropy/{}/{what}.npy", self.name))).expect("a file");
        let flat = kc_core::AnyTensor::new(
            any.dtype(),
            vec![any.len()],
            kc_core::Bytes::from_owner(any.bytes().to_vec()),
        );
        flat.and_then(|flat| flat.to_f64::<1>(what.to_owned())).expect("numbers").into_vec()
    }
}

fn golden_dir(name: &str) -> std::path::PathBuf {
    kc_testing::golden_dir().join("cut_cross_entropy").join(name)
}

const CASES: [&str; 4] = ["mean_plain", "softcap_bias_ignore", "none_shift2", "sum_smoothing_weights"];

fn losses(forward: &XentForward) -> Vec<f64> {
    match &forward.loss {
        Loss::Scalar(loss) => vec![*loss],
        Loss::PerToken(losses) => losses.as_slice().to_vec(),
    }
}

fn check(case: &Golden, forward: &XentForward, grads: &XentGrads<f32>, tol: f64) {
    assert_close(&losses(forward), &case.numbers("loss"), Tol::new(tol, tol));
    assert_close(forward.lse.as_slice(), &case.numbers("lse"), Tol::new(tol, tol));
    let json = golden_json(&format!("cut_cross_entropy/{}/case.json", case.name));
    assert_eq!(forward.n_valid as u64, json["n_valid"].as_u64().expect("a number"));
    let z_loss = json["z_loss_value"].as_f64().expect("a number");
    assert!((forward.z_loss - z_loss).abs() <= 1e-6 * (1.0 + z_loss), "{} {z_loss}", forward.z_loss);
    let de = grads.de.as_ref().expect("de");
    assert!(relative_error(de.as_slice(), &case.numbers("de")) < tol, "{} de", case.name);
    let dc = grads.dc.as_ref().expect("dc");
    assert!(relative_error(dc.as_slice(), &case.numbers("dc")) < tol, "{} dc", case.name);
    if let Some(dbias) = &grads.dbias {
        assert!(relative_error(dbias.as_slice(), &case.numbers("dbias")) < tol, "{} dbias", case.name);
    }
}

#[test]
fn the_definition_gives_the_golden_figures() {
    for case in CASES.map(Golden::load) {
        let ones = vec![1.0];
        let grad_out = case.grad_out.as_ref().map_or(ones, |g| g.iter().map(|&g| f64::from(g)).collect());
        let found =
            reference::linear_cross_entropy(&case.input(), &case.config, &grad_out, &[]).expect("a loss");
        let want = case.numbers("loss");
        if want.len() == 1 {
            assert_close(&[found.loss], &want, Tol::rel(1e-7));
        } else {
            assert_close(found.losses.as_slice(), &want, Tol::new(1e-7, 1e-9));
        }
        assert_close(found.lse.as_slice(), &case.numbers("lse"), Tol::new(1e-7, 1e-9));
        assert!(relative_error(found.de.as_slice(), &case.numbers("de")) < 1e-6);
        assert!(relative_error(found.dc.as_slice(), &case.numbers("dc")) < 1e-6);
        assert!(relative_error(&found.logit_avg, &case.numbers("logit_avg")) < 1e-6);
        if case.bias.is_some() {
            assert!(relative_error(&found.dbias, &case.numbers("dbias")) < 1e-6);
        }
    }
}

#[test]
fn every_case_at_every_level() {
    for mut case in CASES.map(Golden::load) {
        each_isa(|isa| {
            case.config.isa = isa;
            let (input, need) = (case.input(), Need::default());
            let forward = linear_cross_entropy(&input, &case.config).expect("a loss");
            let grads =
                linear_cross_entropy_backward(&forward, &input, None, case.seeds(), need, &case.config)
                    .expect("gradients");
            check(&case, &forward, &grads, 1e-5);
            let (again, fused) =
                linear_cross_entropy_with_grad(&input, case.seeds(), need, &case.config).expect("both");
            check(&case, &again, &fused, 1e-5);
            assert_eq!(forward, again);
            assert_eq!(grads.blocks_kept, grads.blocks_total);
            // Mean logits come with a filter.
            let config = XentConfig { filter: Filter::Auto, label_smoothing: 0.0, ..case.config.clone() };
            let average = linear_cross_entropy(&input, &config).expect("a loss").logit_avg.expect("means");
            assert!(relative_error(&average, &case.numbers("logit_avg")) < 1e-5);
        });
    }
}

#[test]
fn the_filter_skips_the_golden_blocks() {
    let mut case = Golden::load("filter");
    let json = golden_json("cut_cross_entropy/filter/case.json");
    let number = |key: &str| json[key].as_f64().expect("a number");
    each_isa(|isa| {
        case.config.isa = isa;
        let input = case.input();
        let run = |config: &XentConfig| {
            let forward = linear_cross_entropy(&input, config).expect("a loss");
            assert_close(&losses(&forward), &[number("loss")], Tol::rel(1e-6));
            linear_cross_entropy_backward(&forward, &input, None, Seeds::default(), Need::default(), config)
                .expect("gradients")
        };
        let share = |grads: &XentGrads<f32>| grads.blocks_kept as f64 / grads.blocks_total as f64;
        let filtered = run(&case.config);
        assert_eq!(filtered.blocks_total, 96);
        assert_eq!(share(&filtered), number("kept_sorted"));
        let unsorted = run(&XentConfig { sort_vocab: false, ..case.config.clone() });
        assert_eq!(share(&unsorted), number("kept_unsorted"));
        let exact = run(&XentConfig { filter: Filter::None, ..case.config.clone() });
        let de = |grads: &XentGrads<f32>| grads.de.clone().expect("de");
        let dc = |grads: &XentGrads<f32>| grads.dc.clone().expect("dc");
        assert!(relative_error(de(&exact).as_slice(), &case.numbers("de_exact")) < 1e-5);
        assert!(relative_error(dc(&exact).as_slice(), &case.numbers("dc_exact")) < 1e-5);
        assert!(relative_error(de(&filtered).as_slice(), &case.numbers("de_filtered")) < 1e-5);
        let lost = relative_error(dc(&filtered).as_slice(), dc(&exact).as_slice());
        assert!((lost / number("dc_rel_fro") - 1.0).abs() < 1e-2, "{lost}");
        // The one-call form skips single words, which loses no more than eps lets it.
        let (_, fused) =
            linear_cross_entropy_with_grad(&input, Seeds::default(), Need::default(), &case.config)
                .expect("both");
        assert!(share(&fused) < 0.5, "{}", share(&fused));
        let lost = relative_error(dc(&fused).as_slice(), dc(&exact).as_slice());
        assert!(lost > 0.0 && lost < 0.02, "{lost}");
    });
}

#[test]
fn targets_may_be_of_32_bits() {
    let case = Golden::load("mean_plain");
    let narrow: Vec<i32> = case.targets.as_slice().iter().map(|&t| t as i32).collect();
    let narrow = TensorView::from_slice(case.targets.shape(), &narrow).expect("targets");
    let input = XentInput::batched(case.e.view(), case.c.view(), narrow).expect("an input");
    let want = linear_cross_entropy(&case.input(), &case.config).expect("a loss");
    assert_eq!(linear_cross_entropy(&input, &case.config).expect("a loss"), want);
}
