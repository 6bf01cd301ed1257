//! Named problems of cubature.

use std::path::Path;

use anyhow::Result;
use kc_qmc::Integrand;
use kc_qmc::cubature::{Multilevel, MultilevelOption};

use super::integrands;
use super::named::Named;

fn named(text: &str, params: Option<&Path>) -> Result<Named> {
    text.parse::<Named>()?.with_file(params)
}

/// The integrand with this name, with parameters from the text and a file.
pub(super) fn integrand(text: &str, params: Option<&Path>, dim: usize) -> Result<Box<dyn Integrand>> {
    Ok(integrands::integrand(&named(text, params)?, dim)?)
}

/// The multilevel problem with this name, with `coarsest` coordinates on level 0.
pub(super) fn multilevel(text: &str, params: Option<&Path>, coarsest: usize) -> Result<Box<dyn Multilevel>> {
    let config = integrands::option_config(&named(text, params)?)?;
    Ok(Box::new(MultilevelOption::new(config, coarsest)?))
}
