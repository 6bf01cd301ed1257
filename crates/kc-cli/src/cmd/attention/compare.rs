//! `kc attention compare`.

use anyhow::Result;
use kc_core::{AnyTensor, Error, Tensor};

use crate::input;
use crate::report::Answer;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The result, of any shape and floating-point type
    #[arg(long, value_name = "FILE")]
    a: String,
    /// What it is compared with, of the same shape
    #[arg(long, value_name = "FILE")]
    b: String,
}

pub(crate) fn run(args: &Args) -> Result<Answer> {
    let (a, b) = (input::any("a", &args.a)?, input::any("b", &args.b)?);
    if a.shape() != b.shape() {
        return Err(Error::shape("a", format!("{:?} to match b", b.shape()), a.shape()).into());
    }
    let found = kc_attention::compare(flat("a", &a)?.view(), flat("b", &b)?.view())?;
    let mut answer = Answer::default();
    answer.set("cos", found.cos);
    answer.set("rel_l1", found.rel_l1);
    answer.set("rmse", found.rmse);
    Ok(answer)
}

/// The elements, whatever the rank.
fn flat(name: &'static str, tensor: &AnyTensor) -> Result<Tensor<f64, 1>> {
    let bytes = kc_core::Bytes::from_owner(tensor.bytes().to_vec());
    Ok(AnyTensor::new(tensor.dtype(), vec![tensor.len()], bytes)?.to_f64(name)?)
}
