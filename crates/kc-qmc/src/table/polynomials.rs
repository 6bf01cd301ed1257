//! Primitive polynomials over the field of two elements, in the order of Sobol' tables.

/// The largest degree: more than a million polynomials.
const MOST_DEGREE: u32 = 24;

/// Degree and inner coefficients of the primitive polynomials, by degree and then by coefficients.
#[derive(Debug)]
pub(super) struct Primitive {
    degree: u32,
    /// The next candidate.
    inner: u64,
    /// Prime factors of `2^degree - 1`.
    factors: Vec<u64>,
}

impl Primitive {
    pub(super) fn new() -> Self {
        Self { degree: 1, inner: 0, factors: Vec::new() }
    }
}

impl Iterator for Primitive {
    type Item = (u32, u64);

    fn next(&mut self) -> Option<(u32, u64)> {
        while self.degree <= MOST_DEGREE {
            if self.inner >> (self.degree - 1) != 0 {
                self.degree += 1;
                self.inner = 0;
                self.factors = prime_factors((1 << self.degree) - 1);
                continue;
            }
            let (degree, inner) = (self.degree, self.inner);
            self.inner += 1;
            if is_primitive(1 << degree | inner << 1 | 1, degree, &self.factors) {
                return Some((degree, inner));
            }
        }
        None
    }
}

/// That the powers of x modulo the polynomial only return to 1 after `2^degree - 1` steps.
fn is_primitive(polynomial: u64, degree: u32, factors: &[u64]) -> bool {
    let order = (1 << degree) - 1;
    power_of_x(order, polynomial, degree) == 1
        && factors.iter().all(|factor| power_of_x(order / factor, polynomial, degree) != 1)
}

/// `x^exponent` modulo the polynomial.
fn power_of_x(exponent: u64, polynomial: u64, degree: u32) -> u64 {
    let times = |a: u64, b: u64| {
        (0..degree).rev().fold(0u64, |product, bit| {
            let shifted = product << 1;
            let reduced = if shifted >> degree & 1 == 1 { shifted ^ polynomial } else { shifted };
            reduced ^ if b >> bit & 1 == 1 { a } else { 0 }
        })
    };
    let x = if degree == 1 { 1 } else { 2 };
    (0..64 - exponent.leading_zeros()).rev().fold(1, |power, bit| {
        let square = times(power, power);
        if exponent >> bit & 1 == 1 { times(square, x) } else { square }
    })
}

fn prime_factors(mut n: u64) -> Vec<u64> {
    let mut factors = Vec::new();
    let mut d = 2;
    while d * d <= n {
        if n.is_multiple_of(d) {
            factors.push(d);
            while n.is_multiple_of(d) {
                n /= d;
            }
        }
        d += 1;
    }
    if n > 1 {
        factors.push(n);
    }
    factors
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_begins_as_in_the_tables() {
        let list: Vec<_> = Primitive::new().take(10).collect();
        let want = [(1, 0), (2, 1), (3, 1), (3, 2), (4, 1), (4, 4), (5, 2), (5, 4), (5, 7), (5, 11)];
        assert_eq!(list, want);
        // phi(2^s - 1) / s of degree s.
        let counts = (1..=10).map(|s| Primitive::new().take_while(|p| p.0 <= s).filter(|p| p.0 == s).count());
        assert_eq!(counts.collect::<Vec<_>>(), [1, 1, 2, 2, 6, 6, 18, 16, 48, 60]);
    }
}
