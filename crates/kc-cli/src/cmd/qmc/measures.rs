//! Measures by name.

use kc_core::{Error, Result};
use kc_qmc::Measure;
use kc_qmc::integrand::Chain;
use kc_qmc::measure::{
    BridgeOrder, BrownianConfig, BrownianMotion, Copula, CopulaMeasure, Covariance, Decomposition,
    Distribution, Gaussian, GeometricBrownianMotion, Lebesgue, Marginals, MaternConfig, OutputOrder,
    ProductMeasure, StudentT, Uniform, UniformTriangle, matern_gp,
};
use serde_json::Value;

use super::named::{Named, Parameters};

/// What a name stands for: a measure, and another one that its points are drawn from, if there is.
pub(super) struct Sampled {
    pub(super) measure: Box<dyn Measure>,
    pub(super) sampler: Option<Chain>,
}

/// The endings of names that set the decomposition: `gaussian_pca`, `brownian_bridge`.
const ENDINGS: [(&str, &str); 4] =
    [("_pca", "pca"), ("_cholesky", "cholesky"), ("_brownianbridge", "bridge"), ("_bridge", "bridge")];

pub(super) const DECOMPOSITION: [&str; 3] = ["decomposition", "decomp_type", "decomp"];

/// The measure of this name in `dim` coordinates, and its sampler.
pub(super) fn sampled(named: &Named, dim: usize) -> Result<Sampled> {
    let parameters = named.read();
    let sampler = match parameters.list(&["sampler"]) {
        None => None,
        Some(list) => Some(Chain::new(blocks(&list, dim)?)?),
    };
    let measure = measure(named, &parameters, dim, sampler.as_ref())?;
    parameters.finish()?;
    if measure.dim() != dim {
        return Err(Error::shape("measure", format!("{dim} coordinates, as the points"), &[measure.dim()]));
    }
    Ok(Sampled { measure, sampler })
}

/// Measures of `dim` coordinates each.
fn blocks(list: &[&Value], dim: usize) -> Result<Vec<Box<dyn Measure>>> {
    list.iter().map(|value| own(&Named::from_json(value, "measure")?, dim)).collect()
}

/// A measure that samples itself.
fn own(named: &Named, dim: usize) -> Result<Box<dyn Measure>> {
    let parameters = named.read();
    let measure = measure(named, &parameters, dim, None)?;
    parameters.finish()?;
    Ok(measure)
}

fn measure(
    named: &Named,
    parameters: &Parameters<'_>,
    dim: usize,
    sampler: Option<&Chain>,
) -> Result<Box<dyn Measure>> {
    let name = named.name();
    let (base, ending) = ENDINGS
        .iter()
        .find_map(|(ending, word)| name.strip_suffix(ending).map(|base| (base, Some(*word))))
        .unwrap_or((&name, None));
    let decomposition = || decomposition(parameters, ending);
    Ok(match base {
        "uniform" => {
            let ends = |keys: &[&str], default| Ok(parameters.numbers(keys)?.unwrap_or(vec![default]));
            let (lower, upper): (Vec<f64>, Vec<f64>) =
                (ends(&["lower", "low"], 0.0)?, ends(&["upper", "high"], 1.0)?);
            Box::new(Uniform::new(dim, &lower, &upper)?)
        }
        "gaussian" => {
            let mean = parameters.numbers(&["mean"])?.unwrap_or(vec![0.0]);
            let covariance = covariance(parameters, &["cov", "covariance"], dim, 1.0)?;
            Box::new(Gaussian::new(dim, &mean, covariance, decomposition()?)?)
        }
        "brownian" | "brownian_motion" => {
            Box::new(BrownianMotion::new(dim, &brownian(parameters, 0.0, decomposition()?)?)?)
        }
        "gbm" | "geometric_brownian_motion" => {
            Box::new(GeometricBrownianMotion::new(dim, &brownian(parameters, 1.0, decomposition()?)?)?)
        }
        "student_t" => {
            let loc = parameters.numbers(&["loc"])?.unwrap_or(vec![0.0; dim]);
            let loc = if loc.len() == 1 { vec![loc[0]; dim] } else { loc };
            let shape = parameters.needed_numbers(&["shape"])?;
            Box::new(StudentT::new(&loc, &shape, parameters.needed_number(&["df"])?)?)
        }
        "lebesgue" => Box::new(match sampler {
            Some(sampler) => Lebesgue::on(sampler.range())?,
            None => Lebesgue::real(dim)?,
        }),
        "matern_gp" => Box::new(matern(parameters, dim, decomposition()?)?),
        "uniform_triangle" => Box::new(UniformTriangle),
        "marginals" => {
            let list = marginals(parameters)?.ok_or_else(|| Error::empty("marginals.marginals"))?;
            Box::new(Marginals::new(list)?)
        }
        "product" => {
            let list = parameters.list(&["blocks"]).ok_or_else(|| Error::empty("product.blocks"))?;
            Box::new(ProductMeasure::new(product(&list, dim)?)?)
        }
        copula if copula.ends_with("_copula") => Box::new(dependent(copula, parameters, dim)?),
        family => Box::new(Marginals::new(repeated(family, parameters, dim)?)?),
    })
}

fn decomposition(parameters: &Parameters<'_>, ending: Option<&str>) -> Result<Decomposition> {
    let choices = [
        ("pca", Decomposition::Pca),
        ("cholesky", Decomposition::Cholesky),
        ("bridge", Decomposition::Bridge),
        ("brownianbridge", Decomposition::Bridge),
    ];
    let chosen = parameters.choice(&DECOMPOSITION, &choices)?;
    Ok(ending
        .and_then(|word| choices.iter().find(|(name, _)| *name == word))
        .map_or(chosen, |(_, choice)| *choice))
}

/// `decomposition` of integrands.
pub(super) fn decomposition_of(parameters: &Parameters<'_>) -> Result<Decomposition> {
    decomposition(parameters, None)
}

/// A number, a vector of variances or a matrix.
pub(super) fn covariance(
    parameters: &Parameters<'_>,
    keys: &[&str],
    dim: usize,
    default: f64,
) -> Result<Covariance> {
    let nested =
        matches!(parameters.value(keys), Some(Value::Array(rows)) if rows.iter().any(Value::is_array));
    let Some(values) = parameters.numbers(keys)? else { return Ok(Covariance::Scalar(default)) };
    Ok(match values.len() {
        _ if nested => Covariance::Matrix(values),
        1 => Covariance::Scalar(values[0]),
        len if len == dim => Covariance::Diagonal(values),
        _ => Covariance::Matrix(values),
    })
}

fn brownian(
    parameters: &Parameters<'_>,
    initial: f64,
    decomposition: Decomposition,
) -> Result<BrownianConfig> {
    let mut config = BrownianConfig::default();
    config.t_final = parameters.number(&["t_final"])?.unwrap_or(1.0);
    config.initial = parameters.number(&["initial", "initial_value"])?.unwrap_or(initial);
    config.drift = parameters.number(&["drift"])?.unwrap_or(0.0);
    config.diffusion = parameters.number(&["diffusion"])?.unwrap_or(1.0);
    config.decomposition = decomposition;
    config.monitoring_times = parameters.numbers(&["monitoring_times"])?;
    config.bridge_order = parameters
        .choice(&["bridge_order"], &[("vdc", BridgeOrder::VanDerCorput), ("given", BridgeOrder::AsGiven)])?;
    config.output_order = parameters.choice(
        &["output_order", "bridge_output_order"],
        &[("increasing", OutputOrder::Increasing), ("input", OutputOrder::Input)],
    )?;
    Ok(config)
}

fn matern(parameters: &Parameters<'_>, dim: usize, decomposition: Decomposition) -> Result<Gaussian> {
    let mut config = MaternConfig::default();
    for (keys, place) in [
        (&["length_scale", "length"][..], &mut config.length_scale),
        (&["nu"], &mut config.nu),
        (&["variance"], &mut config.variance),
        (&["nugget"], &mut config.nugget),
    ] {
        *place = parameters.number(keys)?.unwrap_or(*place);
    }
    config.mean = parameters.numbers(&["mean"])?.unwrap_or(config.mean);
    config.decomposition = decomposition;
    let points = parameters.needed_numbers(&["points"])?;
    if points.is_empty() || !points.len().is_multiple_of(dim) {
        return Err(Error::shape("matern_gp.points", format!("{dim} points"), &[points.len()]));
    }
    matern_gp(&points, points.len() / dim, &config)
}

/// The list of distributions under `marginals`.
fn marginals(parameters: &Parameters<'_>) -> Result<Option<Vec<Distribution>>> {
    let Some(list) = parameters.list(&["marginals"]) else { return Ok(None) };
    let parse = |value: &Value| match value {
        Value::String(text) => text.parse(),
        other => Err(Error::argument("marginals", "texts like \"norm(0, 1)\"", other)),
    };
    // On a command line a single text holds all, separated by semicolons.
    let split = |value: &Value| match value {
        Value::String(text) => text.split(';').map(Value::from).collect(),
        other => vec![other.clone()],
    };
    list.into_iter().flat_map(split).map(|value| parse(&value)).collect::<Result<_>>().map(Some)
}

/// Blocks side by side. One of them may leave out its dimension: it gets what is left.
fn product(list: &[&Value], dim: usize) -> Result<Vec<Box<dyn Measure>>> {
    let width = |value: &&Value| value.get("dim").and_then(Value::as_u64);
    let known: u64 = list.iter().filter_map(width).sum();
    let left = (dim as u64).saturating_sub(known) as usize;
    let open = list.iter().filter(|value| width(value).is_none()).count();
    if open > 1 || known + left as u64 != dim as u64 || (open == 0 && left > 0) {
        let expected = format!("blocks of {dim} coordinates in all, all but one with a dim");
        return Err(Error::argument("product.blocks", expected, format!("{known} and {open} without")));
    }
    list.iter()
        .map(|value| {
            let width = width(value).map_or(left, |width| width as usize);
            let mut bare = (*value).clone();
            if let Value::Object(object) = &mut bare {
                object.shift_remove("dim");
            }
            own(&Named::from_json(&bare, "measure")?, width)
        })
        .collect()
}

fn dependent(name: &str, parameters: &Parameters<'_>, dim: usize) -> Result<CopulaMeasure> {
    let correlation = || parameters.needed_numbers(&["correlation"]);
    let theta = || parameters.needed_number(&["theta"]);
    let copula = match name {
        "gaussian_copula" => Copula::gaussian(dim, &correlation()?)?,
        "student_copula" | "student_t_copula" => {
            Copula::student(dim, &correlation()?, parameters.needed_number(&["df"])?)?
        }
        "clayton_copula" => Copula::clayton(dim, theta()?)?,
        "gumbel_copula" => Copula::gumbel(dim, theta()?)?,
        "frank_copula" => Copula::frank(dim, theta()?)?,
        other => {
            return Err(Error::argument(
                "measure",
                "gaussian_, student_, clayton_, gumbel_ or frank_copula",
                other,
            ));
        }
    };
    let uniform = || vec![Distribution::Uniform { low: 0.0, high: 1.0 }; dim];
    CopulaMeasure::new(copula, marginals(parameters)?.unwrap_or_else(uniform))
}

/// A family of one variable in each coordinate, each parameter one value or one per coordinate.
fn repeated(family: &str, parameters: &Parameters<'_>, dim: usize) -> Result<Vec<Distribution>> {
    let Ok(keys) = Distribution::parameters(family) else {
        const NAMES: &str = "uniform, gaussian, brownian, gbm, student_t, lebesgue, matern_gp, uniform_triangle, \
                             marginals, product, a copula (gaussian_copula, ..) or a family of marginals (norm, ..)";
        return Err(Error::argument("measure", NAMES, family));
    };
    let mut values = Vec::new();
    for key in keys {
        if let Some(list) = parameters.numbers(&[key])? {
            if list.len() != 1 && list.len() != dim {
                return Err(Error::shape(
                    format!("{family}.{key}"),
                    format!("1 or {dim} values"),
                    &[list.len()],
                ));
            }
            values.push((key, list));
        }
    }
    (0..dim)
        .map(|j| {
            Distribution::named(family, |key| {
                let list = &values.iter().find(|(name, _)| *name == key)?.1;
                list.get(j).or(list.first()).copied()
            })
        })
        .collect()
}
