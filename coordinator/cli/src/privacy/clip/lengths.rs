//! How long gradients are, and what that says of a clip.

/// A clip within this much of the median is as good as the median.
const ABOUT: f64 = 1.25;
/// One beyond this much of it is called what it is.
const FAR: f64 = 2.0;

/// Lengths of gradients, at least one, the shortest first.
pub(super) struct Lengths(Vec<f64>);

impl Lengths {
    /// A text without a gradient, or with one that is no number, says nothing.
    pub(super) fn of(mut found: Vec<f64>) -> Option<Self> {
        found.retain(|length| length.is_finite() && *length > 0.0);
        found.sort_by(f64::total_cmp);
        (!found.is_empty()).then_some(Self(found))
    }

    /// How many.
    pub(super) const fn count(&self) -> usize {
        self.0.len()
    }

    /// The length that this share of them is not above, in proportion between two of them.
    pub(super) fn quantile(&self, share: f64) -> f64 {
        let at = share.clamp(0.0, 1.0) * (self.0.len() - 1) as f64;
        let (below, above) = (self.0[at.floor() as usize], self.0[at.ceil() as usize]);
        below + (above - below) * at.fract()
    }

    /// The share of them that a clip makes shorter.
    pub(super) fn longer_than(&self, clip: f64) -> f64 {
        self.0.iter().filter(|length| **length > clip).count() as f64 / self.0.len() as f64
    }
}

/// What clip to choose.
pub(super) fn advice(clip: f64, median: f64) -> String {
    let (times, choose) = (clip / median, format!("choose about {}, the median, or less", short(median)));
    if times > FAR {
        format!(
            "clip is {times:.1} times the median: the noise is {times:.1} times what it need be; {choose}."
        )
    } else if times > ABOUT {
        format!("clip is {times:.1} times the median; {choose}.")
    } else {
        "clip is about the median or less, as it should be.".to_owned()
    }
}

/// With three digits that count.
pub(super) fn short(value: f64) -> String {
    let whole = value.abs().max(1e-9).log10().floor() as i32;
    let places = (2 - whole).clamp(0, 9) as usize;
    format!("{value:.places$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_in_order_and_without_what_is_none() {
        let lengths = Lengths::of(vec![0.4, f64::NAN, 0.1, 0.0, 0.3, f64::INFINITY, 0.2, 0.5]).unwrap();
        assert_eq!(lengths.0, [0.1, 0.2, 0.3, 0.4, 0.5]);
        assert_eq!([0.0, 0.5, 1.0].map(|share| lengths.quantile(share)), [0.1, 0.3, 0.5]);
        assert!((lengths.quantile(0.1) - 0.14).abs() < 1e-12 && (lengths.quantile(0.9) - 0.46).abs() < 1e-12);
        assert_eq!([0.05, 0.3, 0.5].map(|clip| lengths.longer_than(clip)), [1.0, 0.4, 0.0]);
        let one = Lengths::of(vec![0.2]).unwrap();
        assert_eq!([0.1, 0.5, 0.9].map(|share| one.quantile(share)), [0.2; 3]);
        assert!(Lengths::of(vec![f64::NAN, 0.0]).is_none() && Lengths::of(Vec::new()).is_none());
    }

    #[test]
    fn a_clip_far_above_the_median_is_called_what_it_is() {
        let far = "clip is 7.8 times the median: the noise is 7.8 times what it need be; choose about 0.0640, the median, or less.";
        assert_eq!(advice(0.5, 0.064), far);
        assert_eq!(
            advice(0.1, 0.064),
            "clip is 1.6 times the median; choose about 0.0640, the median, or less."
        );
        for clip in [0.01, 0.064, 0.07] {
            assert_eq!(advice(clip, 0.064), "clip is about the median or less, as it should be.");
        }
    }

    #[test]
    fn numbers_have_three_digits_that_count() {
        assert_eq!([0.06402, 0.5, 7.8125, 118.4].map(short), ["0.0640", "0.500", "7.81", "118"]);
        assert_eq!(short(0.0), "0.000000000");
    }
}
