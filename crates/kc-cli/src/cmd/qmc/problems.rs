//! Named problems of cubature.

use std::path::Path;

use anyhow::Result;
use kc_core::Error;
use kc_qmc::Integrand;
use kc_qmc::cubature::{Multilevel, MultilevelOption};
use kc_qmc::integrand::{Keister, OptionConfig};

/// The integrand with this name.
pub(super) fn integrand(text: &str, _params: Option<&Path>, dim: usize) -> Result<Box<dyn Integrand>> {
    match text {
        "keister" => Ok(Box::new(Keister::on_cube(dim)?)),
        other => Err(Error::argument("integrand", "keister", other).into()),
    }
}

/// The multilevel problem with this name, with `coarsest` coordinates on level 0.
pub(super) fn multilevel(text: &str, _params: Option<&Path>, coarsest: usize) -> Result<Box<dyn Multilevel>> {
    match text {
        "option" => Ok(Box::new(MultilevelOption::new(OptionConfig::default(), coarsest)?)),
        other => Err(Error::argument("integrand", "option", other).into()),
    }
}
