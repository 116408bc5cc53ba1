//! What models are made of.

use burn::tensor::{
    Bool, Device, Int, Tensor, activation,
    module::{conv2d, embedding},
    ops::ConvOptions,
};

use crate::{parity, ramp, values};

#[test]
fn products() {
    for [rows, inner, columns] in [[1, 64, 48], [7, 33, 5], [64, 96, 80], [128, 576, 192]] {
        parity(&format!("product [{rows}, {inner}] [{inner}, {columns}]"), 1e-4, |device| {
            values(ramp([rows, inner], 37, device).matmul(ramp([inner, columns], 29, device)))
        });
    }
    parity("batched product with a transposed view", 1e-4, |device| {
        let (a, b) = (ramp([3, 9, 16], 37, device), ramp([3, 11, 16], 29, device));
        values(a.matmul(b.transpose()))
    });
}

#[test]
fn sums_and_shifts() {
    parity("sum", 1e-4, |device| values(ramp([70, 130], 37, device).sum()));
    parity("sums of rows and columns", 1e-4, |device| {
        let x = ramp([70, 130], 37, device);
        [values(x.clone().sum_dim(1)), values(x.clone().mean_dim(0)), values(x.var_mean(1).0)].concat()
    });
    parity("slices, joins and masks", 0.0, |device| {
        let x = ramp([2, 6, 8], 37, device);
        let halves = Tensor::cat(vec![x.clone().narrow(2, 4, 4).neg(), x.clone().narrow(2, 0, 4)], 2);
        let mask = Tensor::<2, Bool>::triu_mask([6, 8], 1, device).unsqueeze::<3>().expand([2, 6, 8]);
        values(halves.mask_fill(mask, -9.0) + x)
    });
}

#[test]
fn activations() {
    let x = |device: &Device| ramp([37, 101], 37, device).mul_scalar(6.0);
    parity("softmax", 1e-4, |device| values(activation::softmax(x(device), 1)));
    parity("log softmax", 1e-4, |device| values(activation::log_softmax(x(device), 1)));
    parity("gelu", 1e-4, |device| values(activation::gelu(x(device))));
    parity("silu", 1e-4, |device| values(activation::silu(x(device))));
    parity("clamp", 0.0, |device| values(x(device).clamp(0.0, 6.0)));
    parity("rms norm", 1e-4, |device| {
        let x = x(device);
        let scale = x.clone().powi_scalar(2).mean_dim(1).add_scalar(1e-5).sqrt();
        values(x / scale)
    });
}

#[test]
fn lookups() {
    parity("embedding", 0.0, |device| {
        let ids = Tensor::<2, Int>::from_ints([[0, 4, 4], [9, 1, 0]], device);
        values(embedding(ramp([10, 16], 37, device), ids))
    });
    parity("gather", 0.0, |device| {
        let picked = Tensor::<2, Int>::from_ints([[3], [0], [15]], device);
        values(ramp([3, 16], 37, device).gather(1, picked))
    });
}

#[test]
fn convolutions() {
    parity("convolution, stride 2, uneven padding", 1e-4, |device| {
        let options = ConvOptions::new_with_padding([2, 2], [(0, 1), (0, 1)], [1, 1], 1);
        values(conv2d(ramp([2, 3, 16, 16], 37, device), ramp([8, 3, 3, 3], 29, device), None, options))
    });
    parity("depthwise convolution", 1e-4, |device| {
        let options = ConvOptions::new_with_padding([1, 1], [(2, 2), (2, 2)], [1, 1], 12);
        values(conv2d(ramp([2, 12, 9, 9], 37, device), ramp([12, 1, 5, 5], 29, device), None, options))
    });
}
