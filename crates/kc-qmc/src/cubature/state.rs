//! The byte format of a cubature's state.
//!
//! `KCQMC` and a version, then the fields that an engine writes, little-endian, each list with its length before
//! it, and a check sum of all of it. Reading checks every length against the bytes that are left before anything
//! is allocated, so a truncated or hostile file is an error and nothing else.

use kc_core::{Complex, Error, Result};

const MAGIC: &[u8; 8] = b"KCQMC\0\0\x01";

/// Collects the fields of a state.
#[derive(Debug)]
pub(super) struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    pub(super) fn new() -> Self {
        Self { bytes: MAGIC.to_vec() }
    }

    pub(super) fn u64(&mut self, value: u64) {
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }

    pub(super) fn f64(&mut self, value: f64) {
        self.u64(value.to_bits());
    }

    pub(super) fn bool(&mut self, value: bool) {
        self.u64(u64::from(value));
    }

    pub(super) fn text(&mut self, value: &str) {
        self.u64(value.len() as u64);
        self.bytes.extend_from_slice(value.as_bytes());
    }

    pub(super) fn list<T: Field>(&mut self, values: &[T]) {
        self.u64(values.len() as u64);
        self.bytes.reserve(values.len() * T::BYTES);
        for value in values {
            value.write(&mut self.bytes);
        }
    }

    /// The finished file.
    pub(super) fn finish(mut self) -> Vec<u8> {
        let check = checksum(&self.bytes);
        self.u64(check);
        self.bytes
    }
}

/// A number of fixed size.
pub(super) trait Field: Copy {
    const BYTES: usize;
    fn write(self, out: &mut Vec<u8>);
    /// From exactly [`BYTES`](Self::BYTES) bytes.
    fn read(bytes: &[u8]) -> Self;
}

fn word<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut word = [0; N];
    word.copy_from_slice(&bytes[..N]);
    word
}

impl Field for u32 {
    const BYTES: usize = 4;
    fn write(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.to_le_bytes());
    }
    fn read(bytes: &[u8]) -> Self {
        u32::from_le_bytes(word(bytes))
    }
}

impl Field for u64 {
    const BYTES: usize = 8;
    fn write(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.to_le_bytes());
    }
    fn read(bytes: &[u8]) -> Self {
        u64::from_le_bytes(word(bytes))
    }
}

impl Field for f64 {
    const BYTES: usize = 8;
    fn write(self, out: &mut Vec<u8>) {
        self.to_bits().write(out);
    }
    fn read(bytes: &[u8]) -> Self {
        f64::from_bits(u64::read(bytes))
    }
}

impl Field for Complex<f64> {
    const BYTES: usize = 16;
    fn write(self, out: &mut Vec<u8>) {
        self.re.write(out);
        self.im.write(out);
    }
    fn read(bytes: &[u8]) -> Self {
        Complex::new(f64::read(bytes), f64::read(&bytes[8..]))
    }
}

/// Reads the fields back.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
    whole: usize,
}

impl<'a> Reader<'a> {
    /// Checks the magic, the version and the check sum.
    ///
    /// # Errors
    /// `Parse`: not a state, another version, damaged or truncated.
    pub(super) fn new(bytes: &'a [u8]) -> Result<Self> {
        let refused = |message: &str| Err(Error::parse("state", message));
        if bytes.len() < MAGIC.len() + 8 || bytes[..7] != MAGIC[..7] {
            return refused("not the state of a cubature");
        }
        if bytes[7] != MAGIC[7] {
            return refused(&format!("expected version {}, got {}", MAGIC[7], bytes[7]));
        }
        let (body, check) = bytes.split_at(bytes.len() - 8);
        if checksum(body) != u64::read(check) {
            return refused("the check sum does not match: damaged or truncated");
        }
        Ok(Self { rest: &body[MAGIC.len()..], whole: body.len() })
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        if count > self.rest.len() {
            let at = (self.whole - self.rest.len()) as u64;
            return Err(Error::parse_byte("state", at, format_args!("expected {count} more bytes")));
        }
        let (head, rest) = self.rest.split_at(count);
        self.rest = rest;
        Ok(head)
    }

    pub(super) fn u64(&mut self) -> Result<u64> {
        Ok(u64::read(self.take(8)?))
    }

    pub(super) fn f64(&mut self) -> Result<f64> {
        Ok(f64::read(self.take(8)?))
    }

    pub(super) fn bool(&mut self) -> Result<bool> {
        match self.u64()? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(self.wrong(format_args!("expected 0 or 1, got {other}"))),
        }
    }

    /// A number of items that each take at least `bytes` of what is left.
    pub(super) fn count(&mut self, bytes: usize) -> Result<usize> {
        let count = self.u64()?;
        match usize::try_from(count).ok().and_then(|count| count.checked_mul(bytes)) {
            Some(need) if need <= self.rest.len() => Ok(count as usize),
            _ => Err(self.wrong(format_args!("{count} items are announced, more than the file holds"))),
        }
    }

    pub(super) fn text(&mut self) -> Result<&'a str> {
        let count = self.count(1)?;
        let bytes = self.take(count)?;
        std::str::from_utf8(bytes).map_err(|_| self.wrong("not UTF-8"))
    }

    pub(super) fn list<T: Field>(&mut self) -> Result<Vec<T>> {
        let count = self.count(T::BYTES)?;
        Ok(self.take(count * T::BYTES)?.chunks_exact(T::BYTES).map(T::read).collect())
    }

    /// A list of exactly `count` items.
    pub(super) fn list_of<T: Field>(&mut self, count: usize) -> Result<Vec<T>> {
        let list = self.list()?;
        if list.len() != count {
            return Err(self.wrong(format_args!("expected {count} items, got {}", list.len())));
        }
        Ok(list)
    }

    /// Nothing may be left.
    pub(super) fn end(&self) -> Result<()> {
        if self.rest.is_empty() {
            return Ok(());
        }
        Err(self.wrong(format_args!("{} bytes too many", self.rest.len())))
    }

    /// A field that says something impossible.
    pub(super) fn wrong(&self, message: impl std::fmt::Display) -> Error {
        Error::parse_byte("state", (self.whole - self.rest.len()) as u64, message)
    }

    /// The next text must be `expected`: what the state belongs to.
    ///
    /// # Errors
    /// `Argument` naming the `field`.
    pub(super) fn same(&mut self, field: &str, expected: &str) -> Result<()> {
        let got = self.text()?;
        if got == expected {
            return Ok(());
        }
        Err(Error::argument(format!("resume: {field}"), expected, got))
    }
}

/// Finds damage, not malice: lanes of multiply and rotate.
pub(super) fn checksum(bytes: &[u8]) -> u64 {
    const FACTOR: u64 = 0x9E37_79B9_7F4A_7C15;
    let mut hash = bytes.len() as u64 ^ FACTOR;
    let mut words = bytes.chunks_exact(8);
    for bytes in &mut words {
        hash = (hash ^ u64::read(bytes)).wrapping_mul(FACTOR).rotate_left(29);
    }
    for byte in words.remainder() {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(FACTOR).rotate_left(29);
    }
    hash ^ hash >> 32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Vec<u8> {
        let mut w = Writer::new();
        w.text("net-g");
        w.u64(7);
        w.bool(true);
        w.list(&[1.5, -0.0, f64::INFINITY]);
        w.list(&[1u32, 2]);
        w.list(&[Complex::new(1.0, 2.0)]);
        w.finish()
    }

    fn read(bytes: &[u8]) -> Result<()> {
        let mut r = Reader::new(bytes)?;
        r.same("algorithm", "net-g")?;
        assert_eq!(r.u64()?, 7);
        assert!(r.bool()?);
        assert_eq!(r.list::<f64>()?[2], f64::INFINITY);
        assert_eq!(r.list_of::<u32>(2)?, [1, 2]);
        assert_eq!(r.list::<Complex<f64>>()?, [Complex::new(1.0, 2.0)]);
        r.end()
    }

    #[test]
    fn what_is_written_is_read() {
        read(&sample()).unwrap();
    }

    #[test]
    fn every_truncation_and_every_flip_is_an_error() {
        let bytes = sample();
        for end in 0..bytes.len() {
            assert!(read(&bytes[..end]).is_err());
        }
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x10;
            assert!(read(&damaged).is_err(), "byte {at}");
        }
    }

    #[test]
    fn an_announced_length_allocates_nothing() {
        let mut w = Writer::new();
        w.u64(u64::MAX);
        let bytes = w.finish();
        assert!(matches!(Reader::new(&bytes).unwrap().list::<f64>(), Err(Error::Parse { .. })));
    }

    #[test]
    fn a_mismatch_names_its_field() {
        let mut r = Reader { rest: &sample()[8..], whole: 100 };
        let Err(Error::Argument { arg, .. }) = r.same("algorithm", "rep-t") else { panic!() };
        assert_eq!(arg, "resume: algorithm");
    }
}
