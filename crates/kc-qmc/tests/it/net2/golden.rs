//! Every case of QMCPy's `DigitalNetB2`, bit for bit.

use kc_qmc::net2::{BitOrder, GeneratingMatrices, NetTable};
use kc_qmc::{DigitalNetConfig, Dims, NusEngine, Order, Randomize, Sequence};
use kc_testing::{golden_json, golden_tensor};
use serde_json::Value;

use super::{digits, net};

fn config(case: &Value) -> DigitalNetConfig {
    let number = |name: &str| case[name].as_u64().unwrap_or_else(|| panic!("no {name} in {case}")) as usize;
    let dims = match case["dims"].as_array() {
        Some(list) => Dims::List(list.iter().map(|v| v.as_u64().unwrap() as usize).collect()),
        None => Dims::First(number("d")),
    };
    let mut config = DigitalNetConfig::new(dims, number("seed") as u64);
    config.randomize = match case["randomize"].as_str().unwrap() {
        "FALSE" => Randomize::None,
        "DS" => Randomize::Ds,
        "LMS" => Randomize::Lms,
        "LMS DS" => Randomize::LmsDs,
        "NUS" => Randomize::Nus(NusEngine::Trie),
        other => panic!("{other}"),
    };
    config.order = if case["order"] == "gray" { Order::Gray } else { Order::Natural };
    config.alpha = number("alpha");
    config.bits = number("t") as u32;
    config.replications = number("replications");
    config.table = match case["matrices"].as_str().unwrap() {
        "joe_kuo.6.21201" => NetTable::JoeKuo,
        file => {
            let (file, order) = file.split_once(' ').unwrap();
            assert_eq!(order, "(msb)");
            let table = golden_tensor::<u64, 2>(&format!("qmcpy/{file}"));
            let [d, m] = table.shape();
            NetTable::Matrices(GeneratingMatrices::new([1, d, m], table.into_vec(), BitOrder::Msb).unwrap())
        }
    };
    config
}

#[test]
fn every_case_is_the_references() {
    let cases = golden_json("qmcpy/seq_cases.json");
    let mut count = 0;
    for case in cases.as_array().unwrap().iter().filter(|case| case["gen"] == "digital_net_b2") {
        count += 1;
        let config = config(case);
        let mut net = net(&config);
        let file = format!("qmcpy/{}", case["file"].as_str().unwrap());
        let rows = case["n_min"].as_u64().unwrap()..case["n"].as_u64().unwrap();
        assert_eq!(u64::from(net.bits()), case["bits"].as_u64().unwrap(), "{case}");
        if case["output"] == "integers" {
            let want = golden_tensor::<u64, 3>(&file);
            assert_eq!([net.replications(), (rows.end - rows.start) as usize, net.dim()], want.shape());
            assert_eq!(digits(&mut net, rows), want.as_slice(), "{case}");
        } else {
            let want = golden_tensor::<f64, 3>(&file);
            let got = net.points(rows).unwrap();
            assert_eq!(got.shape(), want.shape());
            assert_eq!(got.as_slice(), want.as_slice(), "{case}");
        }
    }
    assert_eq!(count, 44);
}

#[test]
fn the_niederreiter_xing_tables_are_the_files() {
    for alpha in [2, 3] {
        let want = golden_tensor::<u64, 2>(&format!("qmcpy/data_dnet_nx_s5_alpha{alpha}_m32.npy"));
        let table = NetTable::NiederreiterXing { alpha }.matrices(&[0, 1, 2, 3, 4]).unwrap();
        assert_eq!(table.values(), want.as_slice());
        assert_eq!((table.shape(), table.bits()), ([1, 5, 32], 32));
    }
}
