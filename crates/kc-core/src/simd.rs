//! Instruction sets: which the processor has, and which one a kernel runs on.
//!
//! An [`Isa`] can only be made by detection, so holding one proves that its instructions exist; this is
//! what makes the safe wrappers around SIMD kernels sound.

use std::fmt;
use std::sync::OnceLock;

/// A set of instructions that kernels are written for. Ordered: each level contains those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Level {
    /// Safe Rust for any processor.
    Portable,
    /// AVX2, FMA and F16C (Haswell 2013, Zen 2017).
    Avx2,
    /// AVX-512 F, BW, DQ, VL and CD (Skylake-X 2017).
    Avx512,
    /// Adds VNNI, VBMI, VBMI2, BITALG, VPOPCNTDQ and GFNI (Ice Lake 2019, Zen 4 2022).
    Avx512Icl,
    /// Adds BF16 and FP16 (Sapphire Rapids 2023).
    Avx512Spr,
}

impl Level {
    /// All levels, lowest first.
    pub const ALL: [Level; 5] =
        [Level::Portable, Level::Avx2, Level::Avx512, Level::Avx512Icl, Level::Avx512Spr];

    /// The name that `KC_ISA` and `kc --isa` take.
    pub const fn name(self) -> &'static str {
        match self {
            Level::Portable => "portable",
            Level::Avx2 => "avx2",
            Level::Avx512 => "avx512",
            Level::Avx512Icl => "avx512icl",
            Level::Avx512Spr => "avx512spr",
        }
    }

    /// The level of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|level| level.name() == name)
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Proof that this processor has the instructions of a [`Level`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Isa(Level);

impl Isa {
    /// The portable level, which every processor has.
    pub const PORTABLE: Isa = Isa(Level::Portable);

    /// `level`, if this processor has it. Under Miri only the portable level is there.
    pub fn detect(level: Level) -> Option<Self> {
        (level <= highest()).then_some(Isa(level))
    }

    /// Every level of this processor, lowest first: what tests loop over.
    pub fn available() -> impl Iterator<Item = Isa> {
        Level::ALL.into_iter().filter_map(Isa::detect)
    }

    /// The highest level of this processor, or the one that the environment variable `KC_ISA` caps it to.
    /// The variable is read once; an unknown name is ignored.
    pub fn best() -> Self {
        *BEST.get_or_init(|| {
            let cap = std::env::var("KC_ISA").ok().and_then(|name| Level::from_name(&name));
            Isa(cap.map_or(highest(), |cap| cap.min(highest())))
        })
    }

    /// Makes `isa` what [`best`](Self::best) returns in this process. For programs, at their start: false,
    /// and no effect, once anybody has asked for the best level.
    pub fn set_best(isa: Isa) -> bool {
        BEST.set(isa).is_ok()
    }

    /// The level that is proven.
    pub const fn level(self) -> Level {
        self.0
    }

    /// This level, or `cap` if that is lower: for kernels that have no code of their own above `cap`.
    pub fn at_most(self, cap: Level) -> Self {
        Isa(self.0.min(cap))
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

static BEST: OnceLock<Isa> = OnceLock::new();

fn highest() -> Level {
    static HIGHEST: OnceLock<Level> = OnceLock::new();
    *HIGHEST.get_or_init(detect_highest)
}

#[cfg(all(target_arch = "x86_64", not(miri)))]
fn detect_highest() -> Level {
    use std::arch::is_x86_feature_detected as has;
    if !(has!("avx2") && has!("fma") && has!("f16c") && has!("bmi1") && has!("bmi2") && has!("popcnt")) {
        return Level::Portable;
    }
    if !(has!("avx512f") && has!("avx512bw") && has!("avx512dq") && has!("avx512vl") && has!("avx512cd")) {
        return Level::Avx2;
    }
    if !(has!("avx512vnni")
        && has!("avx512vbmi")
        && has!("avx512vbmi2")
        && has!("avx512bitalg")
        && has!("avx512vpopcntdq")
        && has!("gfni"))
    {
        return Level::Avx512;
    }
    if !(has!("avx512bf16") && has!("avx512fp16")) {
        return Level::Avx512Icl;
    }
    Level::Avx512Spr
}

#[cfg(not(all(target_arch = "x86_64", not(miri))))]
fn detect_highest() -> Level {
    Level::Portable
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        for level in Level::ALL {
            assert_eq!(Level::from_name(level.name()), Some(level));
        }
        assert_eq!(Level::from_name("sse9"), None);
    }

    #[test]
    fn available_levels_are_a_prefix() {
        let levels: Vec<Level> = Isa::available().map(Isa::level).collect();
        assert_eq!(levels, Level::ALL[..levels.len()]);
        assert!(Isa::best().level() <= *levels.last().unwrap());
    }

    #[test]
    fn capping_never_raises() {
        assert_eq!(Isa::PORTABLE.at_most(Level::Avx512Spr), Isa::PORTABLE);
        assert_eq!(Isa::best().at_most(Level::Portable), Isa::PORTABLE);
    }
}
