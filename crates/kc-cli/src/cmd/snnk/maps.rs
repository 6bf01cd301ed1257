//! The flags that choose features, and what they make.

use anyhow::Result;
use clap::ValueEnum;
use kc_core::{Error, Tensor};
use kc_features::maclaurin::{Maclaurin, Series};
use kc_features::relu::Relu;
use kc_features::snnk::{Bundle, Features, Map, Nonlinearity, SnnkConfig};
use kc_features::universal::{Spectrum, Universal};
use kc_features::{Draw, FeatureMap, Projection, Scalar, Scaling};

use super::load::{complex, integers, matrix, vector};
use crate::args::Ctx;
use crate::input;
use crate::report::Usage;

#[derive(Debug, Clone, Copy, PartialEq, ValueEnum)]
enum Kind {
    /// m^-1/2 max(G x, t): a nonlinearity of its own, near the arc-cosine kernel
    Relu,
    /// Universal random features of f(w.x + b), by the spectrum of f
    Urf,
    /// Random Maclaurin features of f(w.x), by its power series
    Maclaurin,
}

#[derive(Debug, Clone, Copy, PartialEq, ValueEnum)]
enum SpectrumName {
    Cos,
    Sin,
    Gauss,
    Sinc,
    Lorentz,
    Sech,
}

impl From<SpectrumName> for Spectrum {
    fn from(name: SpectrumName) -> Self {
        match name {
            SpectrumName::Cos => Spectrum::Cos,
            SpectrumName::Sin => Spectrum::Sin,
            SpectrumName::Gauss => Spectrum::Gauss,
            SpectrumName::Sinc => Spectrum::Sinc,
            SpectrumName::Lorentz => Spectrum::Lorentz,
            SpectrumName::Sech => Spectrum::Sech,
        }
    }
}

/// Which features, of what. --seed draws what no file gives.
#[derive(Debug, clap::Args)]
pub(super) struct MapFlags {
    /// Kind of the features
    #[arg(long, value_enum, value_name = "MAP", default_value_t = Kind::Relu)]
    map: Kind,
    /// Number of features, at least 1 [default: 256, or what --g, --xi or --degrees has]
    #[arg(long, value_name = "N")]
    m: Option<usize>,
    /// Draw directions in blocks of orthogonal rows, with lengths of Gaussian vectors
    #[arg(long)]
    orthogonal: bool,
    /// Draw directions by Walsh-Hadamard transforms, which are never stored
    #[arg(long, conflicts_with_all = ["orthogonal", "g"])]
    hadamard: bool,
    /// Directions, (m, d), or (m, d + 1) with a last column for the bias (relu)
    #[arg(long, value_name = "FILE")]
    g: Option<String>,
    /// Scale every row of x and w to this length first, above 0; rows of zeros stay
    #[arg(long, value_name = "C", allow_negative_numbers = true)]
    normalize: Option<f64>,
    /// relu: what is cut off below
    #[arg(long, value_name = "T", default_value_t = 0.0, allow_negative_numbers = true)]
    threshold: f64,
    /// urf: the function
    #[arg(long, value_enum, value_name = "F", default_value_t = SpectrumName::Cos)]
    spectrum: SpectrumName,
    /// urf: frequencies, (m)
    #[arg(long, value_name = "FILE", requires = "c")]
    xi: Option<String>,
    /// urf: coefficients of the frequencies, (m), complex or real
    #[arg(long, value_name = "FILE", requires = "xi")]
    c: Option<String>,
    /// urf: share of the exponent on the side of x, 0 to 1
    #[arg(long, value_name = "S", default_value_t = 0.5, allow_negative_numbers = true)]
    split: f64,
    /// urf: tilt of the Gaussian, above -0.25
    #[arg(long, value_name = "L", default_value_t = 0.0, allow_negative_numbers = true)]
    lam: f64,
    /// urf: frequencies in pairs xi, -xi that share a direction
    #[arg(long, conflicts_with_all = ["xi", "g"])]
    antithetic: bool,
    /// maclaurin: exp, tanh, gelu, or a file of coefficients c_0, c_1, ...
    #[arg(long, value_name = "SERIES", default_value = "tanh")]
    coef: String,
    /// maclaurin: largest degree, 0 to 64 [default: 8, or what the file of coefficients has]
    #[arg(long, value_name = "N")]
    n_max: Option<usize>,
    /// maclaurin: the terms of degrees 0 and 1 exactly, by 1 + d more features
    #[arg(long)]
    h01: bool,
    /// maclaurin: degree of each feature, (m) integers
    #[arg(long, value_name = "FILE", requires = "omega")]
    degrees: Option<String>,
    /// maclaurin: random signs, (m, at least the largest degree, d), of which the first `degree` rows count
    #[arg(long, value_name = "FILE", requires = "degrees")]
    omega: Option<String>,
}

impl MapFlags {
    fn draw(&self) -> Draw {
        if self.hadamard {
            Draw::Hadamard
        } else if self.orthogonal {
            Draw::Orthogonal(Scaling::Chi)
        } else {
            Draw::Independent
        }
    }

    /// The number of features: what a file has, which must be what the flag says.
    fn count(&self, name: &str, of_file: usize) -> Result<usize> {
        match self.m {
            Some(m) if m != of_file => {
                Err(Error::shape(name.to_owned(), format!("{m} rows, as --m says"), &[of_file]).into())
            }
            _ => Ok(of_file),
        }
    }

    fn series(&self) -> Result<(Series, usize)> {
        let series = match self.coef.as_str() {
            "exp" => Series::Exp,
            "tanh" => Series::Tanh,
            "gelu" => Series::Gelu,
            file if std::path::Path::new(file).extension().is_none() => {
                return Err(Usage(format!("--coef: expected exp, tanh, gelu or a file, got {file}")).into());
            }
            file => Series::Table(vector("--coef", file)?),
        };
        let most = match &series {
            Series::Table(table) => table.len().saturating_sub(1),
            _ => 8,
        };
        Ok((series, self.n_max.unwrap_or(most)))
    }

    /// The map for inputs of width `d`.
    pub(super) fn map<T: Scalar>(&self, d: usize, bias: bool, ctx: &Ctx) -> Result<Map<T>> {
        let urf = self.map == Kind::Urf;
        if !urf && (self.xi.is_some() || self.antithetic) {
            return Err(Usage("--xi, --c and --antithetic need --map urf".into()).into());
        }
        if self.map != Kind::Maclaurin && self.omega.is_some() {
            return Err(Usage("--degrees and --omega need --map maclaurin".into()).into());
        }
        if self.map == Kind::Maclaurin && (self.g.is_some() || self.orthogonal || self.hadamard) {
            let flags = "--g, --orthogonal and --hadamard: the directions of --map maclaurin are signs";
            return Err(Usage(flags.into()).into());
        }
        let seed = ctx.seed()?;
        let g = self.g.as_ref().map(|g| matrix::<T>("--g", g)).transpose()?;
        let samples = match (&self.xi, &self.c) {
            (Some(xi), Some(c)) => Some((vector::<f64>("--xi", xi)?, complex("--c", c)?)),
            _ => None,
        };
        let mut m = self.m.unwrap_or(256);
        if let Some(g) = &g {
            m = self.count("--g", g.shape()[0])?;
        } else if let Some((xi, _)) = &samples {
            m = self.count("--xi", xi.len())?;
        }
        if let Some(omega) = &self.omega {
            return self.given_maclaurin(d, omega);
        }
        let spectrum = match samples {
            Some((xi, c)) => Spectrum::Samples { xi, c },
            None => self.spectrum.into(),
        };
        let nonlinearity = match self.map {
            Kind::Relu => Nonlinearity::Relu { threshold: self.threshold },
            Kind::Urf => {
                let (split, lam, antithetic) = (self.split, self.lam, self.antithetic);
                Nonlinearity::Universal { spectrum, split, lam, antithetic }
            }
            Kind::Maclaurin => {
                let (series, n_max) = self.series()?;
                let map = Nonlinearity::Maclaurin { series, n_max, h01: self.h01 };
                let config =
                    SnnkConfig { map, features: m, draw: self.draw(), seed, normalize: self.normalize };
                let map = Map::draw(&config, d, bias)?;
                if let Features::Maclaurin(f) = map.features()
                    && f.truncated()
                {
                    ctx.warn(format_args!(
                        "the series goes on beyond degree {n_max}: results are biased by its rest"
                    ));
                }
                return Ok(map);
            }
        };
        if urf && matches!(self.spectrum, SpectrumName::Lorentz | SpectrumName::Sech) && self.xi.is_none() {
            ctx.warn("features of this spectrum have infinite variance: keep |x| |w| well below 1");
        }
        let Some(g) = g else {
            let config = SnnkConfig {
                map: nonlinearity,
                features: m,
                draw: self.draw(),
                seed,
                normalize: self.normalize,
            };
            return Ok(Map::draw(&config, d, bias)?);
        };
        let columns = g.shape()[1];
        let column = !urf && columns == d + 1;
        if columns != d && !column {
            return Err(Error::shape("--g", format!("[m, {d}], as x has columns"), &g.shape()).into());
        }
        if bias && !urf && !column {
            let want = format!("[m, {}]: the columns of x and one for the bias", d + 1);
            return Err(Error::shape("--g", want, &g.shape()).into());
        }
        let projection = Projection::new(g)?;
        let features = match nonlinearity {
            Nonlinearity::Universal { spectrum, split, lam, .. } => {
                let (xi, c) = spectrum.draw(m, false, seed)?;
                Features::Universal(Universal::new(projection, xi, c, split, lam)?)
            }
            _ => Features::Relu(Relu::arc_cosine(projection, self.threshold)?),
        };
        Ok(Map::new(features, self.normalize, column)?)
    }

    fn given_maclaurin<T: Scalar>(&self, d: usize, omega: &str) -> Result<Map<T>> {
        let file = self.degrees.as_deref().unwrap_or_default();
        let degrees = integers("--degrees", file, 65)?;
        let m = self.count("--degrees", degrees.len())?;
        let all = input::any("--omega", omega)?.to_f64::<3>("--omega")?;
        let [rows, most, width] = all.shape();
        let largest = degrees.iter().copied().max().unwrap_or(0);
        if rows != m || largest > most || !(width == d || width == d + 1) {
            let want = format!("[{m}, at least {largest}, {d}]");
            return Err(Error::shape("--omega", want, &all.shape()).into());
        }
        let mut signs = Vec::new();
        for (k, degree) in degrees.iter().enumerate() {
            let start = k * most * width;
            signs.extend(all.as_slice()[start..start + degree * width].iter().map(|&x| T::from_f64(x)));
        }
        let omega = Tensor::from_slice([signs.len() / width.max(1), width], &signs)?;
        let (series, n_max) = self.series()?;
        let map = Maclaurin::new(series.coefficients(n_max.min(65)), self.h01, degrees, omega)?;
        Ok(Map::new(Features::Maclaurin(map), self.normalize, width == d + 1)?)
    }
}

/// The number of features as users count them: complex ones once.
pub(super) fn count<T: Scalar>(map: &Map<T>) -> usize {
    if map.is_complex() { map.width() / 2 } else { map.width() }
}

/// ReLU features one after the other.
#[derive(Debug, clap::Args)]
pub(super) struct ChainFlags {
    /// Directions of the layers, first to last, separated by commas: (m, d) each, where d of a later layer is m of the
    /// one before
    #[arg(long, value_name = "FILES", value_delimiter = ',', required_unless_present = "m")]
    g: Vec<String>,
    /// Numbers of features of the layers, to draw directions from --seed instead
    #[arg(long, value_name = "LIST", value_delimiter = ',', conflicts_with = "g")]
    m: Vec<usize>,
    /// Draw directions in blocks of orthogonal rows
    #[arg(long, conflicts_with = "g")]
    orthogonal: bool,
    /// What is cut off below
    #[arg(long, value_name = "T", default_value_t = 0.0, allow_negative_numbers = true)]
    threshold: f64,
}

impl ChainFlags {
    pub(super) fn bundle<T: Scalar>(&self, d: usize, ctx: &Ctx) -> Result<Bundle<T>> {
        let mut maps = Vec::new();
        for g in &self.g {
            let relu = Relu::arc_cosine(Projection::new(matrix("--g", g)?)?, self.threshold)?;
            maps.push(Map::new(Features::Relu(relu), None, false)?);
        }
        let mut width = d;
        for (layer, &features) in self.m.iter().enumerate() {
            // A seed for each layer, as layers must not share directions.
            let seed = ctx.seed()?.wrapping_add(layer as u64);
            let draw = if self.orthogonal { Draw::Orthogonal(Scaling::Chi) } else { Draw::Independent };
            let map = Nonlinearity::Relu { threshold: self.threshold };
            let config = SnnkConfig { map, features, draw, seed, normalize: None };
            maps.push(Map::draw(&config, width, false)?);
            width = features;
        }
        Ok(Bundle::new(maps)?)
    }
}
