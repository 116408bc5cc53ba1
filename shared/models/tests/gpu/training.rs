//! Gradients: of a low-rank adapter beside a frozen weight, for the sum over records and for each record.

use burn::tensor::{Device, Tensor};

use crate::{parity, ramp, values};

const RECORDS: usize = 5;
const TOKENS: usize = 7;
const IN: usize = 24;
const RANK: usize = 4;
const OUT: usize = 16;

/// x W + x A B, with A, B of rank 4; the squared error against a target, summed. `a` is [r, IN, RANK] and `b` is
/// [r, RANK, OUT], where r is 1 or the number of records.
fn loss(x: Tensor<3>, target: Tensor<3>, a: Tensor<3>, b: Tensor<3>) -> Tensor<1> {
    let device = x.device();
    let frozen = ramp([IN, OUT], 41, &device).div_scalar(5.0).unsqueeze::<3>();
    let y = x.clone().matmul(frozen) + x.matmul(a).matmul(b);
    (y - target).powi_scalar(2).sum()
}

fn records(device: &Device) -> (Tensor<3>, Tensor<3>) {
    (ramp([RECORDS, TOKENS, IN], 37, device), ramp([RECORDS, TOKENS, OUT], 53, device))
}

fn adapter(device: &Device) -> (Tensor<3>, Tensor<3>) {
    (ramp([1, IN, RANK], 17, device).div_scalar(4.0), ramp([1, RANK, OUT], 23, device).div_scalar(4.0))
}

/// The gradients of A and B as the leaves' own shapes say.
fn gradients(x: Tensor<3>, target: Tensor<3>, a: Tensor<3>, b: Tensor<3>) -> (Tensor<3>, Tensor<3>) {
    let (a, b) = (a.autodiff().require_grad(), b.autodiff().require_grad());
    let grads = loss(x, target, a.clone(), b.clone()).backward();
    (a.grad(&grads).expect("A has a gradient"), b.grad(&grads).expect("B has a gradient"))
}

#[test]
fn adapter_steps() {
    parity("four steps of a low-rank adapter", 1e-3, |device| {
        let ((x, target), (mut a, mut b)) = (records(device), adapter(device));
        let mut losses = Vec::new();
        for _ in 0..4 {
            losses.extend(values(loss(x.clone(), target.clone(), a.clone(), b.clone())));
            let (da, db) = gradients(x.clone(), target.clone(), a.clone(), b.clone());
            a = a - da.mul_scalar(1e-3);
            b = b - db.mul_scalar(1e-3);
        }
        assert!(losses[3] < losses[0], "the loss does not fall: {losses:?}");
        [values(a), values(b)].concat()
    });
}

#[test]
fn gradients_of_each_record() {
    let batched = |device: &Device| {
        let ((x, target), (a, b)) = (records(device), adapter(device));
        let (da, db) = gradients(x, target, a.expand([RECORDS, IN, RANK]), b.expand([RECORDS, RANK, OUT]));
        [values(da), values(db)].concat()
    };
    let one_by_one = |device: &Device| {
        let ((x, target), (a, b)) = (records(device), adapter(device));
        let (mut all_a, mut all_b) = (Vec::new(), Vec::new());
        for record in 0..RECORDS {
            let (x, target) = (x.clone().narrow(0, record, 1), target.clone().narrow(0, record, 1));
            let (da, db) = gradients(x, target, a.clone(), b.clone());
            all_a.extend(values(da));
            all_b.extend(values(db));
        }
        [all_a, all_b].concat()
    };
    parity("gradients of each record", 1e-4, batched);
    parity("gradients of each record, one by one against batched", 1e-4, |device| {
        let (a, b) = (batched(device), one_by_one(device));
        let off = a.iter().zip(&b).map(|(a, b)| (a - b).abs()).fold(0.0_f32, f32::max);
        assert!(off < 1e-3, "off by {off}");
        b
    });
}
