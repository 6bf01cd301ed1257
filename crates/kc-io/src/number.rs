//! Numbers from bytes.

/// Powers of ten that an f64 holds exactly.
const POW10: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18,
    1e19, 1e20, 1e21, 1e22,
];

/// A decimal number, correctly rounded; `inf`, `nan` and Fortran's `d` exponents too.
pub(crate) fn float(token: &[u8]) -> Option<f64> {
    short_decimal(token).or_else(|| {
        let text = std::str::from_utf8(token).ok()?;
        text.parse().ok().or_else(|| {
            let at = text.find(['d', 'D'])?;
            let text = format!("{}e{}", &text[..at], &text[at + 1..]);
            // Only digits may follow, so that `infd`, `1e5d3` and the like stay wrong.
            text.parse().ok().filter(|x: &f64| x.is_finite())
        })
    })
}

/// The common case: at most 2^53 as an integer, times or divided by a power of ten up to 10^22. Both are
/// exact, so that the one operation rounds correctly (Clinger 1990). `None`: not that simple.
fn short_decimal(token: &[u8]) -> Option<f64> {
    let (negative, digits) = match token {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        _ => (false, token),
    };
    let mut mantissa = 0u64;
    let mut exponent = 0i32;
    let (mut seen, mut point) = (0usize, false);
    let mut at = 0;
    while let Some(&byte) = digits.get(at) {
        let digit = byte.wrapping_sub(b'0');
        if digit < 10 {
            mantissa = mantissa.wrapping_mul(10).wrapping_add(u64::from(digit));
            seen += 1;
            exponent -= i32::from(point);
        } else if byte == b'.' && !point {
            point = true;
        } else {
            break;
        }
        at += 1;
    }
    // 19 digits cannot have wrapped.
    if seen == 0 || seen > 19 || mantissa > 1 << 53 {
        return None;
    }
    if let Some(b'e' | b'E') = digits.get(at) {
        exponent += small_integer(&digits[at + 1..])?;
    } else if at != digits.len() {
        return None;
    }
    let power = *POW10.get(exponent.unsigned_abs() as usize)?;
    let value = if exponent < 0 { mantissa as f64 / power } else { mantissa as f64 * power };
    Some(if negative { -value } else { value })
}

/// Up to four digits with a sign.
fn small_integer(text: &[u8]) -> Option<i32> {
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        _ => (false, text),
    };
    if digits.is_empty() || digits.len() > 4 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let value = digits.iter().fold(0, |n, &b| n * 10 + i32::from(b - b'0'));
    Some(if negative { -value } else { value })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_are_those_of_the_standard_library() {
        for text in [
            "0",
            "-0",
            "+1.5",
            ".646",
            "5.",
            "1e22",
            "1e23",
            "-1e-22",
            "123456789012345678",
            "0.1",
            "3.0e+0",
            "9007199254740992",
            "9007199254740993",
            "1.7976931348623157e308",
            "5e-324",
            "1e400",
            "inf",
            "-inf",
            "00000000000000000000001",
            "1e-5000",
            "2.2250738585072011e-308",
            "0.000000000000000000000123",
        ] {
            let want: f64 = text.parse().unwrap();
            assert_eq!(float(text.as_bytes()).unwrap().to_bits(), want.to_bits(), "{text}");
        }
        assert!(float(b"NaN").unwrap().is_nan());
        assert_eq!(float(b"1.5D+02"), Some(150.0));
    }

    #[test]
    fn other_words_are_no_numbers() {
        for text in
            ["", "-", ".", "e5", "1e", "1e+", "1.2.3", "0x10", "1_0", "--1", "pi", "infd0", "1e5d3", "1 2"]
        {
            assert_eq!(float(text.as_bytes()), None, "{text}");
        }
    }
}
