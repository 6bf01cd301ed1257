//! Independent coordinates, each with a distribution of its own; blocks of other measures.

use kc_core::{Error, Result};

use super::{Distribution, Measure, density_rows, diagonal, endpoint, in_unit_interval, rows};

/// Independent coordinates: `t_j` is the quantile of distribution `j` at `u_j`.
///
/// Kumaraswamy, Johnson's SU, continuous Bernoulli, triangular and zero-inflated exponential measures are of this kind.
///
/// ```
/// use kc_qmc::Measure;
/// use kc_qmc::measure::{Distribution, Marginals};
/// let measure = Marginals::new(vec!["expon(2)".parse()?, "poisson(3)".parse()?])?;
/// let mut t = [0.0; 2];
/// measure.transform(&[0.0, 0.5], &mut t)?;
/// assert_eq!(t, [0.0, 3.0]);
/// assert_eq!(measure.mean(), Some(vec![0.5, 3.0]));
/// # Ok::<(), kc_core::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Marginals {
    list: Vec<Distribution>,
}

impl Marginals {
    /// One distribution per coordinate.
    ///
    /// # Errors
    /// `Empty`; `Argument` for parameters out of their range.
    pub fn new(list: Vec<Distribution>) -> Result<Self> {
        if list.is_empty() {
            return Err(Error::empty("marginals"));
        }
        list.iter().try_for_each(Distribution::check)?;
        Ok(Self { list })
    }

    /// The same distribution in each of `dim` coordinates.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn iid(dim: usize, distribution: Distribution) -> Result<Self> {
        Self::new(vec![distribution; dim])
    }

    /// The distributions.
    pub fn list(&self) -> &[Distribution] {
        &self.list
    }

    /// The quantiles of rows of uniform values.
    pub(crate) fn quantiles(&self, u: &[f64], t: &mut [f64]) -> Result<()> {
        let dim = self.list.len();
        for (row, (u, t)) in u.chunks_exact(dim).zip(t.chunks_exact_mut(dim)).enumerate() {
            for (j, ((t, &u), distribution)) in t.iter_mut().zip(u).zip(&self.list).enumerate() {
                *t = distribution.quantile(u);
                if !t.is_finite() {
                    return Err(endpoint(dim, row * dim + j, u));
                }
            }
        }
        Ok(())
    }

    /// The logarithm of the product of densities at a point.
    pub(crate) fn ln_density(&self, t: &[f64]) -> Result<f64> {
        let mut log = 0.0;
        for (distribution, &t) in self.list.iter().zip(t) {
            match distribution.ln_density(t) {
                // Outside of one range nothing else counts, not even a pole.
                Some(f64::NEG_INFINITY) => return Ok(f64::NEG_INFINITY),
                Some(value) => log += value,
                None => return Err(no_density(distribution)),
            }
        }
        Ok(log)
    }
}

/// The error for a distribution without a density.
pub(crate) fn no_density(distribution: &Distribution) -> Error {
    Error::unsupported(
        format!("density of {}", distribution.name()),
        "it has a point of positive probability",
    )
}

impl Measure for Marginals {
    fn dim(&self) -> usize {
        self.list.len()
    }

    fn range(&self) -> Vec<(f64, f64)> {
        self.list.iter().map(Distribution::range).collect()
    }

    fn transform(&self, u: &[f64], t: &mut [f64]) -> Result<()> {
        rows(self.dim(), u, t)?;
        in_unit_interval(self.dim(), u)?;
        self.quantiles(u, t)
    }

    fn density(&self, t: &[f64], out: &mut [f64]) -> Result<()> {
        density_rows(self.dim(), t, out)?;
        for (t, out) in t.chunks_exact(self.dim()).zip(out) {
            *out = self.ln_density(t)?.exp();
        }
        Ok(())
    }

    fn fingerprint(&self) -> String {
        format!("marginals {:?}", self.list)
    }

    fn mean(&self) -> Option<Vec<f64>> {
        self.list.iter().map(Distribution::mean).collect()
    }

    fn variance(&self) -> Option<Vec<f64>> {
        self.list.iter().map(Distribution::variance).collect()
    }

    fn covariance(&self) -> Option<Vec<f64>> {
        self.variance().map(|variance| diagonal(&variance))
    }
}

/// Independent measures side by side: the first takes the first coordinates, and so on.
pub struct ProductMeasure {
    blocks: Vec<Box<dyn Measure>>,
    dim: usize,
}

impl ProductMeasure {
    /// From its blocks, in order.
    ///
    /// # Errors
    /// `Empty`
    pub fn new(blocks: Vec<Box<dyn Measure>>) -> Result<Self> {
        if blocks.is_empty() {
            return Err(Error::empty("product.blocks"));
        }
        let dim = blocks.iter().map(Measure::dim).sum();
        Ok(Self { blocks, dim })
    }

    /// Calls `visit` for each block with its first coordinate and the block.
    fn each(&self, mut visit: impl FnMut(usize, &dyn Measure) -> Result<()>) -> Result<()> {
        let mut first = 0;
        for block in &self.blocks {
            visit(first, block.as_ref())?;
            first += block.dim();
        }
        Ok(())
    }

    /// One vector of all blocks' vectors.
    fn joined(&self, of: impl Fn(&dyn Measure) -> Option<Vec<f64>>) -> Option<Vec<f64>> {
        let parts: Option<Vec<Vec<f64>>> = self.blocks.iter().map(|block| of(block.as_ref())).collect();
        parts.map(|parts| parts.concat())
    }
}

impl std::fmt::Debug for ProductMeasure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("ProductMeasure").field(&self.fingerprint()).finish()
    }
}

/// The columns `first..first + width` of rows of `dim` values.
fn columns(from: &[f64], dim: usize, first: usize, width: usize) -> Vec<f64> {
    from.chunks_exact(dim).flat_map(|row| &row[first..first + width]).copied().collect()
}

impl Measure for ProductMeasure {
    fn dim(&self) -> usize {
        self.dim
    }

    fn range(&self) -> Vec<(f64, f64)> {
        self.blocks.iter().flat_map(Measure::range).collect()
    }

    fn transform(&self, u: &[f64], t: &mut [f64]) -> Result<()> {
        rows(self.dim, u, t)?;
        self.each(|first, block| {
            let width = block.dim();
            let part = columns(u, self.dim, first, width);
            let mut mapped = vec![0.0; part.len()];
            block.transform(&part, &mut mapped)?;
            for (t, mapped) in t.chunks_exact_mut(self.dim).zip(mapped.chunks_exact(width)) {
                t[first..first + width].copy_from_slice(mapped);
            }
            Ok(())
        })
    }

    fn density(&self, t: &[f64], out: &mut [f64]) -> Result<()> {
        density_rows(self.dim, t, out)?;
        out.fill(1.0);
        let mut factors = vec![0.0; out.len()];
        self.each(|first, block| {
            block.density(&columns(t, self.dim, first, block.dim()), &mut factors)?;
            out.iter_mut().zip(&factors).for_each(|(density, factor)| *density *= factor);
            Ok(())
        })
    }

    fn fingerprint(&self) -> String {
        let blocks: Vec<String> = self.blocks.iter().map(Measure::fingerprint).collect();
        format!("product [{}]", blocks.join(", "))
    }

    fn mean(&self) -> Option<Vec<f64>> {
        self.joined(|block| block.mean())
    }

    fn variance(&self) -> Option<Vec<f64>> {
        self.joined(|block| block.variance())
    }

    fn covariance(&self) -> Option<Vec<f64>> {
        let dim = self.dim;
        let mut matrix = vec![0.0; dim * dim];
        let mut first = 0;
        for block in &self.blocks {
            let (part, width) = (block.covariance()?, block.dim());
            for (i, row) in part.chunks_exact(width).enumerate() {
                let at = (first + i) * dim + first;
                matrix[at..at + width].copy_from_slice(row);
            }
            first += width;
        }
        Some(matrix)
    }
}

/// Uniform on the triangle `0 <= y <= x <= 1`: `x = sqrt(u_1)`, `y = u_2 x`, density 2.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct UniformTriangle;

impl Measure for UniformTriangle {
    fn dim(&self) -> usize {
        2
    }

    fn range(&self) -> Vec<(f64, f64)> {
        vec![(0.0, 1.0); 2]
    }

    fn transform(&self, u: &[f64], t: &mut [f64]) -> Result<()> {
        rows(2, u, t)?;
        in_unit_interval(2, u)?;
        for (u, t) in u.chunks_exact(2).zip(t.chunks_exact_mut(2)) {
            t[0] = u[0].sqrt();
            t[1] = u[1] * t[0];
        }
        Ok(())
    }

    fn density(&self, t: &[f64], out: &mut [f64]) -> Result<()> {
        density_rows(2, t, out)?;
        for (t, out) in t.chunks_exact(2).zip(out) {
            *out = if 0.0 <= t[1] && t[1] <= t[0] && t[0] <= 1.0 { 2.0 } else { 0.0 };
        }
        Ok(())
    }

    fn fingerprint(&self) -> String {
        "uniform_triangle".into()
    }

    fn mean(&self) -> Option<Vec<f64>> {
        Some(vec![2.0 / 3.0, 1.0 / 3.0])
    }

    fn variance(&self) -> Option<Vec<f64>> {
        Some(vec![1.0 / 18.0; 2])
    }

    fn covariance(&self) -> Option<Vec<f64>> {
        Some(vec![1.0 / 18.0, 1.0 / 36.0, 1.0 / 36.0, 1.0 / 18.0])
    }
}
