//! Prime numbers.

/// The first `count` primes.
pub(crate) fn first(count: usize) -> Vec<u32> {
    // The n-th prime is below n (ln n + ln ln n) for n >= 6.
    let n = count.max(6) as f64;
    let bound = (n * (n.ln() + n.ln().ln())) as usize + 1;
    let mut composite = vec![false; bound + 1];
    let mut primes = Vec::with_capacity(count);
    for candidate in 2..=bound {
        if composite[candidate] {
            continue;
        }
        if primes.len() == count {
            break;
        }
        primes.push(candidate as u32);
        for multiple in (candidate * candidate..=bound).step_by(candidate) {
            composite[multiple] = true;
        }
    }
    primes
}

/// The least prime of at least `bound`, for bounds up to 2^30.
pub(crate) fn at_least(bound: u32) -> u32 {
    (bound.max(2)..).find(|&n| is_prime(n)).unwrap_or(2)
}

/// Trial division.
pub(crate) fn is_prime(n: u32) -> bool {
    n >= 2 && (2..).take_while(|d| d * d <= n).all(|d| !n.is_multiple_of(d))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lists_agree_with_trial_division() {
        let list = first(1000);
        assert_eq!(list.len(), 1000);
        assert_eq!(list[999], 7919);
        assert!((2..7920).filter(|&n| is_prime(n)).eq(list));
        assert_eq!(first(0), []);
        assert_eq!(first(1), [2]);
        assert_eq!([0, 2, 3, 4, 90, 97].map(at_least), [2, 2, 3, 5, 97, 97]);
    }
}
