use super::*;

/// Numbers in [-1, 1) that a seed tells.
fn numbers(n: usize, seed: u64) -> Vec<f32> {
    let mut x = seed.wrapping_mul(2).wrapping_add(1);
    (0..n)
        .map(|_| {
            x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (x >> 40) as f32 / (1_u64 << 23) as f32 - 1.0
        })
        .collect()
}

fn close(found: &[f32], wanted: &[f32]) {
    assert_eq!(found.len(), wanted.len());
    for (i, (a, b)) in found.iter().zip(wanted).enumerate() {
        assert!((a - b).abs() <= 1e-4 * (1.0 + b.abs()), "value {i}: {a}, wanted {b}");
    }
}

#[test]
fn product_equals_the_definition() {
    for (rows, inputs, outputs) in [(1, 1, 1), (5, 27, 16), (13, 400, 40), (101, 33, 17)] {
        let (w, b) = (numbers(outputs * inputs, 1), numbers(outputs, 2));
        let (x, old) = (numbers(rows * inputs, 3), numbers(rows * outputs, 4));
        let linear = Linear::new(&w, &b);
        for finish in [Finish::Store, Finish::Relu6, Finish::Add] {
            let mut y = old.clone();
            linear.apply(&x, &mut y, finish);
            let wanted: Vec<f32> = (0..rows * outputs)
                .map(|i| {
                    let (r, n) = (i / outputs, i % outputs);
                    let sum = b[n] + (0..inputs).map(|k| x[r * inputs + k] * w[n * inputs + k]).sum::<f32>();
                    match finish {
                        Finish::Store => sum,
                        Finish::Relu6 => sum.clamp(0.0, 6.0),
                        Finish::Add => sum + old[i],
                    }
                })
                .collect();
            close(&y, &wanted);
        }
    }
}

#[test]
fn a_row_has_the_same_bits_in_any_company() {
    let (rows, inputs, outputs) = (103, 500, 50);
    let linear = Linear::new(&numbers(outputs * inputs, 1), &numbers(outputs, 2));
    let x = numbers(rows * inputs, 3);
    let mut together = vec![0.0; rows * outputs];
    linear.apply(&x, &mut together, Finish::Store);
    for size in [1, 2, 7, 64] {
        let mut apart = vec![0.0; rows * outputs];
        for (x, y) in x.chunks(size * inputs).zip(apart.chunks_mut(size * outputs)) {
            linear.apply(x, y, Finish::Store);
        }
        assert!(together.iter().zip(&apart).all(|(a, b)| a.to_bits() == b.to_bits()), "in {size}s");
    }
}

#[test]
fn depthwise_equals_the_definition() {
    let channels = 16;
    for (side, stride, width) in [(3, 1, 9), (3, 2, 8), (5, 1, 11), (5, 2, 7), (5, 2, 2), (7, 1, 6)] {
        let width_out = usize::div_ceil(width, stride);
        let left = ((width_out - 1) * stride + side).saturating_sub(width) / 2;
        let (w, b) = (numbers(channels * side * side, 1), numbers(channels, 2));
        let input = numbers(side * width * channels, 3);
        let rows: Vec<&[f32]> = input.chunks_exact(width * channels).collect();
        let mut out = vec![0.0; width_out * channels];
        Depthwise::new(&w, &b, side, stride).row(&rows, left, &mut out);
        let wanted: Vec<f32> = (0..out.len())
            .map(|i| {
                let (x, c) = (i / channels, i % channels);
                let mut sum = b[c];
                for (ky, row) in rows.iter().enumerate() {
                    for kx in 0..side {
                        if let Some(at) = (x * stride + kx).checked_sub(left).filter(|&at| at < width) {
                            sum += row[at * channels + c] * w[(c * side + ky) * side + kx];
                        }
                    }
                }
                sum.clamp(0.0, 6.0)
            })
            .collect();
        close(&out, &wanted);
    }
}

#[test]
fn gelu_softmax_and_norm_equal_their_definitions() {
    // From Python's math.erf.
    let mut x = [-6.0, -3.0, -1.0, -0.1, 0.0, 0.5, 1.0, 2.0, 5.0];
    gelu(&mut x);
    let wanted = [
        -5.919_525e-9,
        -4.049_694e-3,
        -0.158_655_25,
        -0.046_017_22,
        0.0,
        0.345_731_23,
        0.841_344_7,
        1.954_499_7,
        4.999_998_6,
    ];
    assert!(x.iter().zip(wanted).all(|(a, b)| (a - b).abs() < 1e-6), "{x:?}");

    let mut rows = [0.0, 1.0_f32.ln(), 3.0_f32.ln(), 80.0, -80.0, 80.0];
    softmax(&mut rows, 3);
    close(&rows, &[0.2, 0.2, 0.6, 0.5, 0.0, 0.5]);

    let mut row: Vec<f32> = (0..20).map(|i| i as f32).collect();
    layer_norm(&mut row, &[2.0; 20], &[1.0; 20], 0.0);
    let deviation = 33.25_f32.sqrt();
    close(&row, &(0..20).map(|i| (i as f32 - 9.5) / deviation * 2.0 + 1.0).collect::<Vec<_>>());
}
