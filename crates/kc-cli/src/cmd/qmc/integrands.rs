//! Integrands by name.

use kc_core::{Error, Result};
use kc_qmc::Integrand;
use kc_qmc::integrand::{
    AsianMean, AsianRule, Barrier, BoxIntegral, Coefficients, Cubic3, FinancialOption, FourBranch2d, Genz,
    GenzFamily, Hartmann6, Ishigami, Keister, Linear0, LogisticRegression, Multimodal2d, NegExp,
    OptionConfig, OptionKind, SensitivityIndices, Side, Sin1d, Subsets,
};

use super::measures::{covariance, decomposition_of};
use super::named::Named;

const NAMES: &str = "keister, genz-FAMILY-KIND, ishigami, box, asian, european, barrier, lookback, digital, \
                     linear0, sin1d, multimodal2d, fourbranch2d, hartmann6, bayesian-lr, neg-exp, cubic3 or \
                     sensitivity(NAME)";

/// The integrand of this name on the unit cube of `dim` coordinates. For sensitivity indices `dim` is that of the
/// function, half of the integrand's.
pub(crate) fn integrand(named: &Named, dim: usize) -> Result<Box<dyn Integrand>> {
    let name = named.name();
    if let Some(inner) = name.strip_prefix("sensitivity(").and_then(|rest| rest.strip_suffix(')')) {
        return sensitivity(inner, named, dim);
    }
    if let Some(rest) = name.strip_prefix("genz_") {
        let (family, kind) = rest.rsplit_once('_').unwrap_or((rest, "1"));
        let kind = kind.parse().map_err(|_| Error::argument("integrand", NAMES, &name))?;
        named.read().finish()?;
        return Ok(Box::new(Genz::new(dim, family.parse()?, Coefficients::from_kind(kind)?)?));
    }
    let parameters = named.read();
    let made: Box<dyn Integrand> = match name.as_str() {
        "keister" => Box::new(Keister::on_cube(dim)?),
        "genz" => {
            let family =
                parameters.choice(&["family"], &GenzFamily::ALL.map(|family| (family.name(), family)))?;
            let kind = parameters.whole(&["kind"])?.unwrap_or(1);
            Box::new(Genz::new(dim, family, Coefficients::from_kind(kind)?)?)
        }
        "ishigami" => {
            let (a, b) =
                (parameters.number(&["a"])?.unwrap_or(7.0), parameters.number(&["b"])?.unwrap_or(0.1));
            Box::new(Ishigami::on_cube(a, b)?)
        }
        "box" => Box::new(BoxIntegral::new(dim, &parameters.numbers(&["s"])?.unwrap_or(vec![1.0]))?),
        name if name == "option" || option_kind(name).is_some() => {
            return Ok(Box::new(FinancialOption::on_cube(dim, &option_config(named)?)?));
        }
        "linear0" => Box::new(Linear0::on_cube(dim)?),
        "sin1d" => Box::new(Sin1d::on_cube(parameters.number(&["k"])?.unwrap_or(1.0))?),
        "multimodal2d" => Box::new(Multimodal2d::on_cube()?),
        "fourbranch2d" => Box::new(FourBranch2d::on_cube()?),
        "hartmann6" | "hartmann6d" => Box::new(Hartmann6),
        "bayesian_lr" => {
            let features = parameters.needed_numbers(&["features"])?;
            let labels = parameters.needed_numbers(&["labels"])?;
            let mean = parameters.numbers(&["prior_mean"])?.unwrap_or(vec![0.0]);
            let prior = covariance(&parameters, &["prior_covariance"], dim, 10.0)?;
            Box::new(LogisticRegression::on_cube(dim, &features, &labels, &mean, prior)?)
        }
        "neg_exp" => Box::new(NegExp::new(dim)?),
        "cubic3" => Box::new(Cubic3::new(dim)?),
        other => return Err(Error::argument("integrand", NAMES, other)),
    };
    parameters.finish()?;
    if made.dim() != dim {
        return Err(Error::argument("dim", format!("{} for {name}", made.dim()), dim));
    }
    Ok(made)
}

/// Options are named by themselves, or by the parameter `kind` of `option`.
const OPTIONS: [(&str, OptionKind); 5] = [
    ("asian", OptionKind::Asian),
    ("european", OptionKind::European),
    ("barrier", OptionKind::Barrier),
    ("lookback", OptionKind::Lookback),
    ("digital", OptionKind::Digital),
];

fn option_kind(name: &str) -> Option<OptionKind> {
    OPTIONS.iter().find(|(own, _)| *own == name).map(|(_, kind)| *kind)
}

/// The settings of the option that this name stands for.
pub(crate) fn option_config(named: &Named) -> Result<OptionConfig> {
    let parameters = named.read();
    let mut config = OptionConfig::default();
    config.kind = match option_kind(&named.name()) {
        Some(kind) => kind,
        None if named.name() == "option" => parameters.choice(&["kind", "option"], &OPTIONS)?,
        None => return Err(Error::argument("integrand", "option, asian, european, ...", named.name())),
    };
    config.side = parameters.choice(&["side", "call_put"], &[("call", Side::Call), ("put", Side::Put)])?;
    config.mean = parameters.choice(
        &["mean", "asian_mean"],
        &[("arithmetic", AsianMean::Arithmetic), ("geometric", AsianMean::Geometric)],
    )?;
    config.rule = parameters.choice(
        &["rule", "asian_mean_quadrature_rule"],
        &[("trapezoidal", AsianRule::Trapezoidal), ("right", AsianRule::Right)],
    )?;
    config.barrier =
        parameters.choice(&["barrier", "barrier_in_out"], &[("in", Barrier::In), ("out", Barrier::Out)])?;
    config.decomposition = decomposition_of(&parameters)?;
    for (keys, place) in [
        (&["volatility"][..], &mut config.volatility),
        (&["start", "start_price"], &mut config.start),
        (&["strike", "strike_price"], &mut config.strike),
        (&["rate", "interest_rate"], &mut config.rate),
        (&["t_final"], &mut config.t_final),
        (&["barrier_price"], &mut config.barrier_price),
        (&["payout", "digital_payout"], &mut config.payout),
    ] {
        *place = parameters.number(keys)?.unwrap_or(*place);
    }
    parameters.finish()?;
    Ok(config)
}

/// `sensitivity(NAME:k=v,..)`, with the parameter `indices` outside of the brackets: `singletons` or `all`.
fn sensitivity(inner: &str, named: &Named, dim: usize) -> Result<Box<dyn Integrand>> {
    let parameters = named.read();
    let subsets = parameters.choice(&["indices"], &[("singletons", false), ("all", true)])?;
    // Parameters of a file belong to the function.
    let function: Named = inner.parse()?;
    let function = function.with_others(named, &["indices"]);
    let subsets = if subsets { Subsets::All } else { Subsets::Singletons };
    Ok(Box::new(SensitivityIndices::new(integrand(&function, dim)?, subsets)?))
}
