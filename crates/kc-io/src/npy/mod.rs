//! NumPy's `.npy`: one tensor.
//!
//! | | Read | Written |
//! |---|---|---|
//! | versions | 1.0, 2.0, 3.0 | 1.0, byte for byte as NumPy 2 writes it |
//! | types | bool, (u)int8-64, float16/32/64, complex64/128 | the same |
//! | byte orders | `<`, `>`, `=`, <code>\|</code> | that of the machine |
//! | orders | C and Fortran | C |
//! | rank | 0 to 32 | 0 to 32 |
//!
//! Data in C order and in the machine's byte order are viewed in place: reading a mapped file touches its
//! header only. Other files are copied once into row-major, native-endian memory; the copy is never larger
//! than the file.
//!
//! Refused: objects, strings, dates and structured types ([`Error::Unsupported`]); booleans other than 0 and
//! 1; and a file whose length is not exactly that of its header and data. NumPy accepts bytes behind the
//! data, which hides files that were joined or overwritten by a shorter array. bfloat16 is no NumPy type:
//! it travels in `.safetensors`.
//!
//! ```
//! use kc_core::Tensor;
//!
//! let x = Tensor::from_slice([2, 2], &[1.0f32, 2.0, 3.0, 4.0])?.into_any();
//! let file = kc_io::npy::to_bytes(&x)?;
//! let back = kc_io::npy::read_bytes(kc_core::Bytes::from_owner(file), "x.npy")?;
//! assert_eq!(back.view::<f32, 2>("x")?.at([1, 0]), 3.0);
//! # Ok::<(), kc_core::Error>(())
//! ```
//!
//! Source: the format's description in NumPy's documentation (NEP 1 and `numpy.lib.format`).

mod header;

use std::io::Write;
use std::path::Path;

use kc_core::shape::checked_len;
use kc_core::{AlignedBuf, AnyTensor, Bytes, Error, Result};

pub use header::{Header, MAX_HEADER, MAX_RANK};

use crate::{atomic, layout, map};

/// Reads a file through a memory map.
pub fn read(path: impl AsRef<Path>) -> Result<AnyTensor> {
    let path = path.as_ref();
    read_bytes(map::map(path)?, &path.display().to_string())
}

/// Reads a whole file that is in memory. `source` names it in errors. The tensor shares `file` when its data
/// can be used as they are.
pub fn read_bytes(file: Bytes, source: &str) -> Result<AnyTensor> {
    let header = Header::parse(&file, source)?;
    let dtype = header.dtype.ok_or_else(|| header.unsupported(source))?;
    let need = checked_len("shape", &header.shape).ok().and_then(|n| n.checked_mul(dtype.size()));
    let have = file.len() - header.data_start;
    if need != Some(have) {
        let need = need.map_or("more than can be addressed".to_owned(), |n| n.to_string());
        let message = format!("expected {need} bytes of data for {:?} of {dtype}, got {have}", header.shape);
        return Err(Error::parse_byte(source, header.data_start as u64, message));
    }
    let data = file.slice(header.data_start..file.len()).unwrap_or_else(|| Bytes::from_owner(Vec::new()));
    let start = header.data_start as u64;
    if !header.fortran || !layout::fortran_differs(&header.shape) {
        return layout::native(dtype, header.shape, data, header.swapped, source, start);
    }
    layout::check_booleans(dtype, &data, source, start)?;
    let mut copy = AlignedBuf::<u8>::zeroed(have)?;
    layout::fortran_to_c(&data, &mut copy, &header.shape, dtype.size());
    if header.swapped {
        layout::swap_bytes(&mut copy, dtype);
    }
    AnyTensor::new(dtype, header.shape, copy.into())
}

/// Reads a string: an array of rank 0 of type `S` or `U`, as SciPy stores the name of a format.
pub fn read_text(file: &[u8], source: &str) -> Result<String> {
    let header = Header::parse(file, source)?;
    let data = &file[header.data_start..];
    let text = match header.descr.as_bytes() {
        _ if !header.shape.is_empty() => None,
        [b'|', b'S', digits @ ..] if digits == data.len().to_string().as_bytes() => {
            std::str::from_utf8(data).ok().map(str::to_owned)
        }
        [order @ (b'<' | b'>'), b'U', digits @ ..]
            if data.len().is_multiple_of(4) && digits == (data.len() / 4).to_string().as_bytes() =>
        {
            let scalar = |b: &[u8; 4]| match order {
                b'<' => u32::from_le_bytes(*b),
                _ => u32::from_be_bytes(*b),
            };
            data.as_chunks::<4>().0.iter().map(|b| char::from_u32(scalar(b))).collect()
        }
        _ => None,
    };
    match text {
        Some(text) => Ok(text.trim_end_matches('\0').to_owned()),
        None => Err(Error::parse_byte(
            source,
            header.data_start as u64,
            format!("expected one string, got {:?} of type {:?}", header.shape, header.descr),
        )),
    }
}

/// Writes a file, beside the target and renamed.
pub fn write(path: impl AsRef<Path>, tensor: &AnyTensor) -> Result<()> {
    let path = path.as_ref();
    atomic::write(path, |out| write_to(out, tensor, path))
}

/// The bytes of a file.
pub fn to_bytes(tensor: &AnyTensor) -> Result<Vec<u8>> {
    let mut file = header::write(tensor.dtype(), tensor.shape())?;
    file.extend_from_slice(tensor.bytes());
    Ok(file)
}

/// Writes what [`to_bytes`] returns without joining it in memory. `path` is for errors.
pub(crate) fn write_to(out: &mut dyn Write, tensor: &AnyTensor, path: &Path) -> Result<()> {
    let header = header::write(tensor.dtype(), tensor.shape())?;
    let parts = out.write_all(&header).and_then(|()| out.write_all(tensor.bytes()));
    parts.map_err(|error| Error::io(path, &error))
}

/// Writes a string as [`read_text`] reads it. `path` is for errors.
#[cfg(feature = "npz")]
pub(crate) fn write_text_to(out: &mut dyn Write, text: &str, path: &Path) -> Result<()> {
    let header = header::write_text(text.len())?;
    let parts = out.write_all(&header).and_then(|()| out.write_all(text.as_bytes()));
    parts.map_err(|error| Error::io(path, &error))
}
