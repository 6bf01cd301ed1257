//! Nets in general bases: golden data, every level against the definition, properties, bad input.

use kc_core::Error;
use kc_qmc::netb::{BaseMatrices, NetMatrices, reference};
use kc_qmc::sequence::NusEngine;
use kc_qmc::{
    Dims, Faure, FaureConfig, GeneralNet, GeneralNetConfig, Halton, HaltonConfig, Randomize, Sequence,
};
use kc_testing::each_isa;

use crate::cases::{bits, cases, check_tail};

const RANDOMIZATIONS: [Randomize; 6] = [
    Randomize::Lms,
    Randomize::Dp,
    Randomize::Ds,
    Randomize::LmsDp,
    Randomize::LmsDs,
    Randomize::Nus(NusEngine::Auto),
];

#[test]
fn the_points_are_the_golden_ones() {
    for case in cases("halton") {
        let mut config = HaltonConfig::new(case.dims(), case.number("seed"));
        config.randomize = case.randomize();
        config.replications = case.replications();
        case.check(&mut Halton::new(config).unwrap());
    }
    for case in cases("faure") {
        let mut config = FaureConfig::new(case.dims(), case.number("seed"));
        config.randomize = case.randomize();
        config.replications = case.replications();
        config.alpha = case.optional("alpha").unwrap_or(1) as usize;
        case.check(&mut Faure::new(config).unwrap());
    }
}
