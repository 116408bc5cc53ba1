use super::*;

fn resized(image: &Image<'_>, size: usize) -> Vec<f32> {
    let mut out = vec![f32::NAN; size * size * 3];
    normalised(image, size, 0.0, 1.0, &mut out);
    out
}

#[test]
fn a_picture_of_the_right_size_is_only_normalised() {
    let mut out = [0.0; 12];
    normalised(
        &Image { height: 2, width: 2, rgb: &[127, 255, 0, 127, 0, 0, 0, 0, 0, 0, 0, 0] },
        2,
        127.0,
        128.0,
        &mut out,
    );
    assert_eq!(out[..3], [0.0, 1.0, -127.0 / 128.0]);
}

#[test]
fn enlarging_is_bilinear_with_half_pixel_centres() {
    let out = resized(&Image { height: 1, width: 2, rgb: &[0, 0, 0, 100, 100, 100] }, 4);
    let row: Vec<f32> = out[..12].iter().step_by(3).copied().collect();
    assert_eq!(row, [0.0, 25.0, 75.0, 100.0]);
}

#[test]
fn shrinking_sees_every_pixel() {
    // One bright column of eight: point sampling to two columns would miss it.
    let rgb: Vec<u8> = (0..8 * 8).flat_map(|i| [if i % 8 == 0 { 240 } else { 0 }; 3]).collect();
    let out = resized(&Image { height: 8, width: 8, rgb: &rgb }, 2);
    assert!(out[0] > 10.0 && out[3] < 1e-3, "{out:?}");
    let flat = resized(&Image { height: 7, width: 5, rgb: &[200; 7 * 5 * 3] }, 3);
    assert!(flat.iter().all(|x| (x - 200.0).abs() < 1e-3));
}

#[test]
fn unusable_pictures_are_refused() {
    for (height, width, bytes) in
        [(0, 5, 0), (5, 0, 0), (2, 2, 11), (2, 2, 4), (MAX_SIDE + 1, 1, 3 * (MAX_SIDE + 1))]
    {
        let rgb = vec![0; bytes];
        assert!(Image { height, width, rgb: &rgb }.check().is_err());
    }
}
