//! Files of version 3.

use kc_core::{Error, Result};

use super::{ALIGNMENT, GgufTensor, Value};

const KEY_OF_ALIGNMENT: &str = "general.alignment";

/// The bytes of a file with these keys and tensors, in this order. The alignment is that of the metadata, or 32.
///
/// # Errors
/// `Argument` for a name that appears twice or an alignment that is no power of two; `Unsupported` for tensors of a
/// type that is not read, because their data are not known.
pub fn write(metadata: &[(String, Value)], tensors: &[GgufTensor]) -> Result<Vec<u8>> {
    let mut names = std::collections::HashSet::new();
    for tensor in tensors {
        if !names.insert(tensor.name()) {
            return Err(Error::argument("tensors", "each name once", tensor.name()));
        }
    }
    let alignment = match metadata.iter().find(|(key, _)| key == KEY_OF_ALIGNMENT) {
        None => ALIGNMENT as usize,
        Some((_, Value::U32(a))) if a.is_power_of_two() => *a as usize,
        Some((key, other)) => {
            return Err(Error::argument(key.clone(), "a power of two (uint32)", format!("{other:?}")));
        }
    };
    let mut out = Vec::new();
    out.extend(b"GGUF");
    out.extend(3u32.to_le_bytes());
    out.extend((tensors.len() as u64).to_le_bytes());
    out.extend((metadata.len() as u64).to_le_bytes());
    for (key, entry) in metadata {
        text(&mut out, key);
        out.extend(entry.kind().to_le_bytes());
        value(&mut out, entry);
    }
    let mut offset = 0usize;
    for tensor in tensors {
        // Also refuses types whose data are not known.
        tensor.kind().row_bytes(tensor.matrix()[1])?;
        text(&mut out, tensor.name());
        out.extend((tensor.shape().len() as u32).to_le_bytes());
        for &dim in tensor.shape().iter().rev() {
            out.extend((dim as u64).to_le_bytes());
        }
        out.extend(tensor.kind().id().to_le_bytes());
        out.extend((offset as u64).to_le_bytes());
        offset = (offset + tensor.data().len()).next_multiple_of(alignment);
    }
    for tensor in tensors {
        out.resize(out.len().next_multiple_of(alignment), 0);
        out.extend_from_slice(tensor.data());
    }
    out.resize(out.len().next_multiple_of(alignment), 0);
    Ok(out)
}

fn text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

fn value(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::U8(x) => out.extend(x.to_le_bytes()),
        Value::I8(x) => out.extend(x.to_le_bytes()),
        Value::U16(x) => out.extend(x.to_le_bytes()),
        Value::I16(x) => out.extend(x.to_le_bytes()),
        Value::U32(x) => out.extend(x.to_le_bytes()),
        Value::I32(x) => out.extend(x.to_le_bytes()),
        Value::F32(x) => out.extend(x.to_le_bytes()),
        Value::Bool(x) => out.push(u8::from(*x)),
        Value::String(x) => text(out, x),
        Value::Array(array) => {
            out.extend(array.kind.to_le_bytes());
            out.extend(array.len.to_le_bytes());
            out.extend_from_slice(&array.bytes);
        }
        Value::U64(x) => out.extend(x.to_le_bytes()),
        Value::I64(x) => out.extend(x.to_le_bytes()),
        Value::F64(x) => out.extend(x.to_le_bytes()),
    }
}
