//! `RAYON_NUM_THREADS=1 cargo bench -p sheaf-secagg --bench masks`

use divan::counter::BytesCount;
use sheaf_secagg::mask::{Sign, apply};
use zeroize::Zeroizing;

fn main() {
    divan::main();
}

/// One mask over a vector, bytes of the vector a second.
#[divan::bench(args = [136_448, 4_000_000])]
fn expand_and_add(bencher: divan::Bencher<'_, '_>, length: usize) {
    let masks = [(Zeroizing::new([7; 32]), Sign::Plus)];
    let mut vector = vec![0_u64; length];
    bencher.counter(BytesCount::new(8 * length)).bench_local(move || apply(&masks, &mut vector));
}
