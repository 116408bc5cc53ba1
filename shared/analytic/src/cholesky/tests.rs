use super::*;
use crate::sample::uniform;

/// A positive definite matrix: random, symmetric, with a heavy diagonal.
fn matrix(n: usize) -> Vec<f64> {
    let noise = uniform(n as u64, n * n);
    let at = |i: usize, j: usize| noise[i.min(j) * n + i.max(j)];
    (0..n * n).map(|k| at(k / n, k % n) + if k / n == k % n { n as f64 } else { 0.0 }).collect()
}

/// The textbook loop, one element at a time.
fn naive_factor(a: &[f64], n: usize) -> Vec<f64> {
    let mut l = vec![0.0; n * n];
    for i in 0..n {
        for j in 0..=i {
            let mut x = a[i * n + j];
            for k in 0..j {
                x -= l[i * n + k] * l[j * n + k];
            }
            l[i * n + j] = if i == j { x.sqrt() } else { x / l[j * n + j] };
        }
    }
    l
}

fn naive_solve(l: &[f64], n: usize, b: &mut [f64], columns: usize) {
    for c in 0..columns {
        for i in 0..n {
            let mut x = b[i * columns + c];
            for k in 0..i {
                x -= l[i * n + k] * b[k * columns + c];
            }
            b[i * columns + c] = x / l[i * n + i];
        }
        for i in (0..n).rev() {
            let mut x = b[i * columns + c];
            for k in (i + 1..n).rev() {
                x -= l[k * n + i] * b[k * columns + c];
            }
            b[i * columns + c] = x / l[i * n + i];
        }
    }
}

fn factored(a: &[f64], n: usize) -> Result<Cholesky, BadPivot> {
    Cholesky::factor(n, |i, row| row.copy_from_slice(&a[i * n..=i * n + i]))
}

#[test]
fn every_bit_is_that_of_the_textbook_loop() {
    // Around the edges of tiles, panels, task rows and depth, and large enough to go to the thread pool.
    for n in [1, 2, 3, 4, 5, 7, 8, 9, 31, 32, 33, 63, 64, 65, 71, 95, 96, 97, 127, 128, 129, 200, 257, 391] {
        let a = matrix(n);
        let ours = factored(&a, n).unwrap();
        let reference = naive_factor(&a, n);
        for i in 0..n {
            for j in 0..=i {
                let (x, y) = (ours.factor[i * ours.n + j], reference[i * n + j]);
                assert_eq!(x.to_bits(), y.to_bits(), "n = {n}, L[{i},{j}]: {x} and {y}");
            }
        }
        for columns in [8, 24] {
            let mut b = uniform(99, ours.n * columns);
            b[n * columns..].fill(0.0);
            let mut expected = b[..n * columns].to_vec();
            naive_solve(&reference, n, &mut expected, columns);
            ours.solve(&mut b, columns);
            let same = b.iter().zip(&expected).all(|(x, y)| x.to_bits() == y.to_bits());
            assert!(same, "n = {n}, {columns} columns");
        }
    }
}

#[test]
fn one_thread_and_many_give_the_same_bits() {
    let n = 400;
    let a = matrix(n);
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let factor = factored(&a, n).unwrap();
            let mut b = uniform(3, factor.n * 40);
            factor.solve(&mut b, 40);
            b.iter().map(|v| v.to_bits()).collect::<Vec<_>>()
        })
    };
    let one = run(1);
    assert_eq!(one, run(2));
    assert_eq!(one, run(5));
}

#[test]
fn a_pivot_of_noise_is_refused_by_its_index() {
    // Rank one: the second pivot is zero up to rounding.
    let v = uniform(4, 70);
    let a: Vec<f64> = (0..70 * 70).map(|k| v[k / 70] * v[k % 70]).collect();
    assert_eq!(factored(&a, 70).err(), Some(BadPivot(1)));
    let mut a = matrix(70);
    a[66 * 70 + 66] = -1.0;
    assert_eq!(factored(&a, 70).err(), Some(BadPivot(66)));
    a[66 * 70 + 66] = f64::NAN;
    assert_eq!(factored(&a, 70).err(), Some(BadPivot(66)));
    assert_eq!(factored(&[0.0], 1).err(), Some(BadPivot(0)));
}
