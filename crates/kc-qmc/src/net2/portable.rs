//! Rows from their two parts, in safe code.

use super::convert::Output;

/// `out[i]` from the integer `low[i] ^ high[i mod high.len()]`; nothing if `high` is empty.
#[inline(always)]
pub(super) fn combine<O: Output>(low: &[u64], high: &[u64], out: &mut [O::Value], output: O) {
    if high.is_empty() {
        return;
    }
    for (low, out) in low.chunks(high.len()).zip(out.chunks_mut(high.len())) {
        for ((low, high), out) in low.iter().zip(high).zip(out) {
            *out = output.convert(low ^ high);
        }
    }
}
