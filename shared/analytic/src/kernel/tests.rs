use super::*;
use crate::sample::uniform;

const ROWS: usize = 16;
const STRIPS: usize = 5;

fn operands(depth: usize) -> (Vec<f64>, Vec<f64>, Vec<[f64; NR]>) {
    let c = uniform(1, ROWS * STRIPS * NR);
    let a = uniform(2, ROWS * depth);
    let b = uniform(3, STRIPS * depth * NR);
    (c, a, b.as_chunks().0.to_vec())
}

/// One element at a time.
fn naive(c: &mut [f64], a: &[f64], strips: &[[f64; NR]], depth: usize) {
    let columns = STRIPS * NR;
    for (at, x) in c.iter_mut().enumerate() {
        let (row, column) = (at / columns, at % columns);
        for k in 0..depth {
            *x -= a[row * depth + k] * strips[column / NR * depth + k][column % NR];
        }
    }
}

fn run<const MR: usize>(arch: pulp::Arch, c: &mut [f64], a: &[f64], strips: &[[f64; NR]], depth: usize) {
    let tiles = pack::<MR>(ROWS, depth, |i, k| a[i * depth + k]);
    let (step, ldc, tiles) = (PhantomData::<Subtract>, STRIPS * NR, tiles.as_slice());
    arch.dispatch(Product { step, c, ldc, col0: 0, tiles, strips, depth, wanted: |_, _| true });
}

fn architectures() -> Vec<pulp::Arch> {
    #[cfg(target_arch = "x86_64")]
    let narrower = pulp::x86::V3::try_new().map(pulp::Arch::V3);
    #[cfg(not(target_arch = "x86_64"))]
    let narrower = None;
    [Some(pulp::Arch::Scalar), narrower, Some(pulp::Arch::new())].into_iter().flatten().collect()
}

#[test]
fn every_vector_width_and_tile_gives_the_same_bits() {
    for depth in [1, 2, 17, 128] {
        let (c, a, strips) = operands(depth);
        let mut expected = c.clone();
        naive(&mut expected, &a, &strips, depth);
        for arch in architectures() {
            for rows in [4, 8] {
                let mut ours = c.clone();
                match rows {
                    4 => run::<4>(arch, &mut ours, &a, &strips, depth),
                    _ => run::<8>(arch, &mut ours, &a, &strips, depth),
                }
                let same = ours.iter().zip(&expected).all(|(x, y)| x.to_bits() == y.to_bits());
                assert!(same, "{arch:?}, {rows} rows a tile, depth {depth}");
            }
        }
    }
}
