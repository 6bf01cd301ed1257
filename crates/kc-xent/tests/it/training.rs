//! Training through the loss.

use kc_core::optim::Adam;
use kc_core::{Tensor, TensorView};
use kc_testing::{golden_tensor, normals};
use kc_xent::{Filter, Need, Seeds, XentConfig, XentInput, accuracy, linear_cross_entropy_with_grad};

#[test]
fn digits_are_learnt_as_well_as_with_a_dense_softmax() {
    let (x, y): (Tensor<u8, 2>, Tensor<i32, 1>) =
        (golden_tensor("digits/digits_x.npy"), golden_tensor("digits/digits_y.npy"));
    let pixels: Vec<f32> = x.as_slice().iter().map(|&p| f32::from(p) / 16.0).collect();
    let x = TensorView::from_slice([1797, 64], &pixels).expect("pixels");
    let y = TensorView::from_slice([1797], y.as_slice()).expect("labels");
    let part = |range: std::ops::Range<usize>| {
        (x.slice(0, range.clone()).expect("x"), y.slice(0, range).expect("y"))
    };
    let ((train_x, train_y), (test_x, test_y)) = (part(0..1297), part(1297..1797));
    let mut trained = Vec::new();
    for filter in [Filter::None, Filter::Auto] {
        let config = XentConfig { filter, ..XentConfig::default() };
        let mut c: Vec<f32> = normals(640, 1).iter().map(|w| w * 0.01).collect();
        let mut bias = vec![0.0f32; 10];
        let (mut of_c, mut of_bias) = (Adam::new(640, 0.02), Adam::new(10, 0.02));
        let mut last = f64::INFINITY;
        for _ in 0..300 {
            let matrix = TensorView::from_slice([10, 64], &c).expect("c");
            let input = XentInput::new(train_x, matrix, train_y)
                .and_then(|input| input.bias(&bias))
                .expect("an input");
            let need = Need { e: false, ..Need::default() };
            let (forward, grads) =
                linear_cross_entropy_with_grad(&input, Seeds::default(), need, &config).expect("both");
            assert!(grads.de.is_none());
            last = forward.total();
            let (dc, dbias) = (grads.dc.expect("dc"), grads.dbias.expect("dbias"));
            of_c.step(&mut c, dc.as_slice()).expect("a step");
            of_bias.step(&mut bias, dbias.as_slice()).expect("a step");
        }
        let matrix = TensorView::from_slice([10, 64], &c).expect("c");
        let input =
            XentInput::new(test_x, matrix, test_y).and_then(|input| input.bias(&bias)).expect("an input");
        let share = accuracy(&input, &config).expect("a share");
        // Logistic regression on these pixels gets about 0.92 to 0.94 of this test part.
        assert!(share > 0.91, "{share}");
        assert!(last < 0.1, "{last}");
        trained.push(last);
    }
    assert!((trained[0] / trained[1] - 1.0).abs() < 5e-3);
}
