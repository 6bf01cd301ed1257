//! The header: magic, version, length, and a Python dictionary.

use kc_core::{DType, Error, Result};

/// The longest header that is read. NumPy's own are a few hundred bytes, also at rank 32.
pub const MAX_HEADER: usize = 1 << 16;

/// The largest rank.
pub const MAX_RANK: usize = 32;

const MAGIC: &[u8; 6] = b"\x93NUMPY";

/// NumPy pads the length of the header to this, ...
const ALIGN: usize = 64;

/// ... after leaving room for the first dimension to grow to this many digits.
const GROWTH_DIGITS: usize = 21;

/// What the header of a file says.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Header {
    /// NumPy's name of the element type, for instance `<f4`.
    pub descr: String,
    /// The type, if it is one of ours.
    pub dtype: Option<DType>,
    /// True if the bytes of each element are in the other order than this machine's.
    pub swapped: bool,
    /// True if the first index runs fastest.
    pub fortran: bool,
    /// The lengths of the axes. Their product is not checked here.
    pub shape: Vec<usize>,
    /// Where the data begin.
    pub data_start: usize,
}

impl Header {
    /// Reads the header at the beginning of `file`.
    pub fn parse(file: &[u8], source: &str) -> Result<Self> {
        let wrong = |at: usize, message: &str| Error::parse_byte(source, at as u64, message);
        if !file.starts_with(MAGIC) {
            return Err(wrong(0, "expected the magic bytes of a .npy file"));
        }
        let (text_start, length) = match file.get(6..12) {
            Some(&[1, 0, a, b, ..]) => (10, usize::from(u16::from_le_bytes([a, b]))),
            Some(&[2 | 3, 0, a, b, c, d]) => (12, u32::from_le_bytes([a, b, c, d]) as usize),
            Some(&[major, minor, ..]) => {
                let what = format!("{source}: .npy version {major}.{minor}");
                return Err(Error::unsupported(what, "versions 1.0, 2.0 and 3.0 are read"));
            }
            _ => return Err(wrong(file.len(), "the file ends in its header")),
        };
        if length > MAX_HEADER {
            return Err(Error::too_large("header", length as u64, MAX_HEADER as u64, "bytes"));
        }
        let Some(text) = file.get(text_start..text_start + length) else {
            return Err(wrong(file.len(), "the file ends in its header"));
        };
        let mut parser = Parser { text, at: 0 };
        let dict = parser
            .dictionary()
            .map_err(|message| Error::parse_byte(source, (text_start + parser.at) as u64, message))?;
        let (Some(descr), Some(fortran), Some(shape)) = (dict.descr, dict.fortran, dict.shape) else {
            return Err(wrong(text_start, "expected the keys descr, fortran_order and shape"));
        };
        let (dtype, swapped) = match known_type(&descr) {
            Some((dtype, swapped)) => (Some(dtype), swapped),
            None => (None, false),
        };
        Ok(Self { descr, dtype, swapped, fortran, shape, data_start: text_start + length })
    }

    /// Why a type is not read.
    pub(super) fn unsupported(&self, source: &str) -> Error {
        let reason = match self.descr.trim_start_matches(['<', '>', '=', '|']).as_bytes() {
            [b'O', ..] => "Python objects are not read; store numbers",
            [b'S' | b'U' | b'a', ..] => "strings are not tensors",
            [b'M' | b'm', ..] => "dates are not read; view them as int64 in NumPy",
            [b'V', ..] | [b'[', ..] => {
                "structured and void types are not read (bfloat16 travels in .safetensors); store the fields apart"
            }
            [b'f' | b'c', ..] => "extended precision is not read; store float64 or complex128",
            _ => "this is no element type of a tensor",
        };
        Error::unsupported(format!("{source}: type {}", self.descr), reason)
    }
}

/// The type, and whether its bytes are in the other order.
fn known_type(descr: &str) -> Option<(DType, bool)> {
    let (swapped, name) = match descr.as_bytes() {
        [b'<', ..] => (cfg!(target_endian = "big"), &descr[1..]),
        [b'>', ..] => (cfg!(target_endian = "little"), &descr[1..]),
        [b'=' | b'|', ..] => (false, &descr[1..]),
        _ => (false, descr),
    };
    let dtype = match name {
        "b1" | "?" => DType::Bool,
        "u1" => DType::U8,
        "i1" => DType::I8,
        "u2" => DType::U16,
        "i2" => DType::I16,
        "u4" => DType::U32,
        "i4" => DType::I32,
        "u8" => DType::U64,
        "i8" => DType::I64,
        "f2" => DType::F16,
        "f4" => DType::F32,
        "f8" => DType::F64,
        "c8" => DType::C64,
        "c16" => DType::C128,
        _ => return None,
    };
    Some((dtype, swapped && dtype.size() > 1))
}

fn name(dtype: DType) -> Option<&'static str> {
    Some(match dtype {
        DType::Bool => "b1",
        DType::U8 => "u1",
        DType::I8 => "i1",
        DType::U16 => "u2",
        DType::I16 => "i2",
        DType::U32 => "u4",
        DType::I32 => "i4",
        DType::U64 => "u8",
        DType::I64 => "i8",
        DType::F16 => "f2",
        DType::F32 => "f4",
        DType::F64 => "f8",
        DType::C64 => "c8",
        DType::C128 => "c16",
        _ => return None,
    })
}

/// The header of a file in C order, as NumPy writes it.
pub(super) fn write(dtype: DType, shape: &[usize]) -> Result<Vec<u8>> {
    let Some(name) = name(dtype) else {
        return Err(Error::unsupported(
            format!("{dtype} in .npy"),
            "NumPy has no such type; write .safetensors or convert to float32",
        ));
    };
    if shape.len() > MAX_RANK {
        return Err(Error::shape("tensor", format!("at most {MAX_RANK} dimensions"), shape));
    }
    let order = match dtype.size() {
        1 => '|',
        _ if cfg!(target_endian = "big") => '>',
        _ => '<',
    };
    write_descr(&format!("{order}{name}"), shape)
}

/// The header of a string: an array of rank 0 of `len` bytes.
#[cfg(feature = "npz")]
pub(super) fn write_text(len: usize) -> Result<Vec<u8>> {
    write_descr(&format!("|S{len}"), &[])
}

fn write_descr(descr: &str, shape: &[usize]) -> Result<Vec<u8>> {
    let axes: Vec<String> = shape.iter().map(usize::to_string).collect();
    // A tuple of one element needs its comma.
    let comma = if axes.len() == 1 { "," } else { "" };
    let mut text =
        format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({}{comma}), }}", axes.join(", "));
    if let Some(first) = axes.first() {
        text.extend(std::iter::repeat_n(' ', GROWTH_DIGITS.saturating_sub(first.len())));
    }
    // NumPy adds a whole block where nothing would be missing.
    let padding = ALIGN - (10 + text.len() + 1) % ALIGN;
    text.extend(std::iter::repeat_n(' ', padding));
    text.push('\n');
    let Ok(length) = u16::try_from(text.len()) else {
        return Err(Error::shape("tensor", "a shape whose text fits a header of 64 KiB", shape));
    };
    let mut header = Vec::with_capacity(10 + text.len());
    header.extend_from_slice(MAGIC);
    header.extend_from_slice(&[1, 0]);
    header.extend_from_slice(&length.to_le_bytes());
    header.extend_from_slice(text.as_bytes());
    Ok(header)
}

#[derive(Default)]
struct Dictionary {
    descr: Option<String>,
    fortran: Option<bool>,
    shape: Option<Vec<usize>>,
}

/// Reads the Python literals that a header may hold, and no others.
struct Parser<'a> {
    text: &'a [u8],
    at: usize,
}

type Parsed<T> = std::result::Result<T, &'static str>;

impl<'a> Parser<'a> {
    fn dictionary(&mut self) -> Parsed<Dictionary> {
        let mut dict = Dictionary::default();
        self.expect(b'{', "expected a dictionary")?;
        while !self.accept(b'}') {
            let key = self.string("expected a key")?;
            self.expect(b':', "expected a colon")?;
            match key {
                "descr" if dict.descr.is_none() => dict.descr = Some(self.descr()?),
                "fortran_order" if dict.fortran.is_none() => dict.fortran = Some(self.boolean()?),
                "shape" if dict.shape.is_none() => dict.shape = Some(self.shape()?),
                _ => return Err("expected each of descr, fortran_order and shape once, and no other key"),
            }
            if !self.accept(b',') {
                self.expect(b'}', "expected a comma or the end of the dictionary")?;
                break;
            }
        }
        self.skip_spaces();
        match self.at == self.text.len() {
            true => Ok(dict),
            false => Err("expected nothing but spaces behind the dictionary"),
        }
    }

    /// The type's name; a structured type is a list, whose text is kept for the message.
    fn descr(&mut self) -> Parsed<String> {
        if self.peek() != Some(b'[') {
            return self.string("expected a type").map(str::to_owned);
        }
        let start = self.at;
        let mut depth = 0usize;
        while let Some(&byte) = self.text.get(self.at) {
            self.at += 1;
            match byte {
                b'[' => depth += 1,
                b']' => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                return Ok(String::from_utf8_lossy(&self.text[start..self.at]).into_owned());
            }
        }
        Err("expected the end of a list")
    }

    fn string(&mut self, expected: &'static str) -> Parsed<&'a str> {
        let quote = self.peek().filter(|b| matches!(b, b'\'' | b'"')).ok_or(expected)?;
        let start = self.at + 1;
        let rest = &self.text[start..];
        let length = rest.iter().position(|&b| b == quote).ok_or("expected the end of a string")?;
        self.at = start + length + 1;
        std::str::from_utf8(&rest[..length]).map_err(|_| "expected text")
    }

    fn boolean(&mut self) -> Parsed<bool> {
        self.skip_spaces();
        let rest = &self.text[self.at..];
        for (word, value) in [(&b"True"[..], true), (b"False", false)] {
            if rest.starts_with(word) {
                self.at += word.len();
                return Ok(value);
            }
        }
        Err("expected True or False")
    }

    fn shape(&mut self) -> Parsed<Vec<usize>> {
        self.expect(b'(', "expected a tuple")?;
        let mut shape = Vec::new();
        while !self.accept(b')') {
            if shape.len() == MAX_RANK {
                return Err("expected at most 32 dimensions");
            }
            shape.push(self.integer()?);
            if !self.accept(b',') {
                // `(3)` would be a number in Python.
                if shape.len() == 1 {
                    return Err("expected a comma");
                }
                self.expect(b')', "expected a comma or the end of the tuple")?;
                break;
            }
        }
        Ok(shape)
    }

    fn integer(&mut self) -> Parsed<usize> {
        self.skip_spaces();
        let rest = &self.text[self.at..];
        let digits = rest.iter().take_while(|b| b.is_ascii_digit()).count();
        if digits == 0 {
            return Err("expected a length");
        }
        let value = rest[..digits]
            .iter()
            .try_fold(0usize, |n, b| n.checked_mul(10)?.checked_add(usize::from(b - b'0')))
            .ok_or("a length is too large")?;
        self.at += digits;
        // Python 2 wrote long integers with a suffix.
        if self.text.get(self.at) == Some(&b'L') {
            self.at += 1;
        }
        Ok(value)
    }

    fn skip_spaces(&mut self) {
        while self.text.get(self.at).is_some_and(u8::is_ascii_whitespace) {
            self.at += 1;
        }
    }

    fn peek(&mut self) -> Option<u8> {
        self.skip_spaces();
        self.text.get(self.at).copied()
    }

    fn accept(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, byte: u8, expected: &'static str) -> Parsed<()> {
        if self.accept(byte) { Ok(()) } else { Err(expected) }
    }
}
