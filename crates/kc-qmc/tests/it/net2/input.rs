//! Bad input.

use kc_core::Error;
use kc_qmc::net2::{BitOrder, GeneratingMatrices, NetTable};
use kc_qmc::{DigitalNet, DigitalNetConfig, Dims, NusEngine, Order, Randomize, Sequence};

use super::{config, error, net};

fn refused(dims: impl Into<Dims>, change: impl FnOnce(&mut DigitalNetConfig)) -> Error {
    error(DigitalNet::new(config(dims, 0, change)))
}

/// Whether an error is about the value of this argument.
fn about(error: &Error, name: &str) -> bool {
    matches!(error, Error::Argument { arg, .. } if arg == name)
}

#[test]
fn dimensions_are_checked() {
    assert!(about(&refused(0, |_| ()), "dims"));
    assert!(about(&refused(21_202, |_| ()), "dims"));
    assert!(about(&refused(usize::MAX, |_| ()), "dims"));
    assert!(about(&refused(6, |c| c.table = NetTable::NiederreiterXing { alpha: 2 }), "dims"));
    assert!(matches!(refused(Dims::List(vec![]), |_| ()), Error::Empty { .. }));
    assert!(about(&refused(Dims::List(vec![3, 1, 3]), |_| ()), "dims"));
    let far = refused(Dims::List(vec![0, 21_201]), |_| ());
    assert!(matches!(far, Error::Index { index: 21_201, bound: 21_201, .. }));
    assert!(about(&refused(10_601, |c| c.alpha = 2), "dims"));
    assert!(about(&refused(Dims::List(vec![0, 1]), |c| c.alpha = 2), "dims"));
    assert!(about(&refused(1, |c| c.alpha = 0), "alpha"));
    assert!(about(&refused(1, |c| c.alpha = usize::MAX), "dims"));
    assert!(about(&refused(1, |c| c.table = NetTable::NiederreiterXing { alpha: 4 }), "table"));
}

#[test]
fn options_are_checked() {
    assert!(about(&refused(1, |c| c.replications = 0), "replications"));
    assert!(about(&refused(1, |c| (c.replications, c.randomize) = (2, Randomize::None)), "replications"));
    assert!(matches!(refused(1, |c| c.replications = usize::MAX), Error::TooLarge { .. }));
    let nested = refused(2, |c| (c.replications, c.randomize) = (1 << 40, Randomize::Nus(NusEngine::Trie)));
    assert!(matches!(nested, Error::TooLarge { .. }));
    for bits in [0, 65, u32::MAX] {
        assert!(about(&refused(1, |c| c.bits = bits), "bits"));
    }
    assert!(about(&refused(1, |c| c.order = Order::Linear), "order"));
    for randomize in [Randomize::Shift, Randomize::Dp, Randomize::LmsDp, Randomize::Qrng, Randomize::Iid] {
        assert!(about(&refused(1, |c| c.randomize = randomize), "randomize"));
    }
    let table = GeneratingMatrices::new([2, 1, 2], vec![1, 2, 3, 9], BitOrder::Msb).unwrap();
    let users = NetTable::Matrices(table);
    assert!(about(&refused(1, |c| (c.table, c.replications, c.bits) = (users.clone(), 2, 3)), "bits"));
    for replications in [1, 3] {
        let wrong = refused(1, |c| (c.table, c.replications) = (users.clone(), replications));
        assert!(matches!(wrong, Error::Shape { .. }));
    }
    assert!(about(&refused(2, |c| (c.table, c.replications) = (users, 2)), "dims"));
}

#[test]
fn ranges_are_checked() {
    let mut natural = net(&config(2, 0, |_| ()));
    for rows in [3..8, 0..100, 48..64, 5..5] {
        assert!(about(&error(natural.points(rows.clone())), "rows"), "{rows:?}");
        let count = 2 * (rows.end - rows.start) as usize;
        assert!(natural.fill_digits(rows.clone(), &mut vec![0; count]).is_err());
        assert!(natural.fill_f32(rows.clone(), &mut vec![0.0; count]).is_err());
        assert!(natural.fill_block(rows, &mut vec![0.0; count]).is_ok());
    }
    let beyond =
        |error: &Error| matches!(error, Error::TooLarge { arg, limit: 0x1_0000_0000, .. } if arg == "rows");
    assert!(beyond(&error(natural.fill(1 << 32..1 << 33, &mut []))));
    let mut gray = net(&config(2, 0, |c| c.order = Order::Gray));
    assert!(gray.points(3..100).is_ok());
    #[expect(clippy::reversed_empty_ranges, reason = "this is what must be refused")]
    let backwards = 8..4;
    assert!(about(&error(gray.fill(backwards, &mut [])), "rows"));
    assert!(beyond(&error(gray.fill((1 << 32) - 1..(1 << 32) + 1, &mut [0.0; 4]))));
    assert!(beyond(&error(gray.fill(0..u64::MAX, &mut []))));
    for length in [0, 7, 9] {
        let wrong = error(gray.fill(0..4, &mut vec![0.0; length]));
        assert!(matches!(wrong, Error::Shape { got, .. } if got == [length]));
    }
}

#[test]
fn matrices_are_checked() {
    let new = |shape, values: &[u64]| GeneratingMatrices::new(shape, values.to_vec(), BitOrder::Msb);
    for shape in [[1, 1, 3], [0, 1, 2], [1, 0, 2], [1, 1, 0], [usize::MAX, 2, 2], [2, 2, 2]] {
        assert!(matches!(error(new(shape, &[1, 2])), Error::Shape { .. }), "{shape:?}");
    }
    assert!(matches!(error(new([1, 1, 65], &[1; 65])), Error::Shape { .. }));
    assert!(matches!(error(new([1, 1, 2], &[0, 0])), Error::Empty { .. }));
    assert!(matches!(error(new([1, 1, 0], &[])), Error::Empty { .. }));
    let narrow = |bits| GeneratingMatrices::with_bits([1, 1, 2], vec![1, 8], bits, BitOrder::Msb);
    let wide = error(narrow(3));
    assert!(about(&wide, "matrices") && wide.to_string().contains("8 at (0, 0, 1)"), "{wide}");
    assert!(about(&error(narrow(0)), "bits") && about(&error(narrow(65)), "bits"));
    assert_eq!(narrow(4).unwrap(), new([1, 1, 2], &[1, 8]).unwrap());

    let lattice = GeneratingMatrices::polynomial_lattice;
    assert!(about(&error(lattice(1, &[0], 4)), "modulus") && about(&error(lattice(0, &[0], 4)), "modulus"));
    assert!(about(&error(lattice(0b111, &[1, 4], 4)), "generators"));
    assert!(
        about(&error(lattice(0b111, &[1], 0)), "bits") && about(&error(lattice(0b111, &[1], 65)), "bits")
    );
    assert!(matches!(error(lattice(0b111, &[], 4)), Error::Empty { .. }));
    assert_eq!(lattice(u64::MAX, &[1, u64::MAX >> 1], 64).unwrap().shape(), [1, 2, 63]);
    for (dims, columns, bits) in [(0, 1, 1), (1, 0, 1), (1, 65, 1), (1, 1, 0), (1, 1, 65)] {
        assert!(GeneratingMatrices::random(dims, columns, bits, &0u64.into()).is_err());
    }
    assert!(matches!(error(NetTable::JoeKuo.matrices(&[21_201])), Error::Index { .. }));
}
