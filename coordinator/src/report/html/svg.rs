//! SVG primitives: just enough to draw the charts of the report, with a title and a description for those
//! who cannot see them.

use super::markup::Escaped;

/// A drawing in user units (about CSS pixels on a desktop page). Colours come from the classes of the style
/// sheet, so that one
/// drawing serves light, dark and print.
pub(super) struct Svg {
    id: String,
    width: f64,
    height: f64,
    head: String,
    body: String,
}

impl Svg {
    /// An empty drawing; `id` must be unique on the page and the caller's own, never outside text.
    pub(super) fn new(id: impl Into<String>, width: f64, height: f64, title: &str, desc: &str) -> Self {
        let (id, mut head) = (id.into(), String::new());
        put!(head, "<title id=\"{id}-title\">{}</title>", Escaped(title));
        put!(head, "<desc id=\"{id}-desc\">{}</desc>\n", Escaped(desc));
        Self { id, width, height, head, body: String::new() }
    }

    pub(super) fn rect(&mut self, class: &str, (x, y): (f64, f64), (w, h): (f64, f64)) {
        put!(
            self.body,
            "<rect class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{:.1}\"/>\n",
            w.max(0.0),
            h.max(0.0)
        );
    }

    /// A rectangle as strong as `opacity` in 0..=1: a cell of a heat map.
    pub(super) fn cell(&mut self, class: &str, (x, y): (f64, f64), (w, h): (f64, f64), opacity: f64) {
        put!(
            self.body,
            "<rect class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{w:.1}\" height=\"{h:.1}\" \
             fill-opacity=\"{:.3}\"/>\n",
            opacity.clamp(0.0, 1.0)
        );
    }

    pub(super) fn line(&mut self, class: &str, (x1, y1): (f64, f64), (x2, y2): (f64, f64)) {
        put!(
            self.body,
            "<line class=\"{class}\" x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\"/>\n"
        );
    }

    pub(super) fn circle(&mut self, class: &str, (x, y): (f64, f64), r: f64) {
        put!(self.body, "<circle class=\"{class}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{r:.1}\"/>\n");
    }

    /// An open line through `points`.
    pub(super) fn polyline(&mut self, class: &str, points: impl IntoIterator<Item = (f64, f64)>) {
        put!(self.body, "<polyline class=\"{class}\" points=\"");
        for (x, y) in points {
            put!(self.body, "{x:.1},{y:.1} ");
        }
        put!(self.body, "\"/>\n");
    }

    /// A shape given by SVG path data made by the caller, never by outside text.
    pub(super) fn path(&mut self, class: &str, data: &str) {
        put!(self.body, "<path class=\"{class}\" d=\"{data}\"/>\n");
    }

    /// Text with its baseline at `y`; the classes `end` and `mid` set the anchor.
    pub(super) fn text(&mut self, class: &str, (x, y): (f64, f64), text: &str) {
        put!(self.body, "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\">{}</text>\n", Escaped(text));
    }

    /// Text that climbs to the right from (x, y), for the column heads of a matrix.
    pub(super) fn slanted(&mut self, class: &str, (x, y): (f64, f64), text: &str) {
        put!(
            self.body,
            "<text class=\"{class}\" transform=\"translate({x:.1} {y:.1}) rotate(-42)\">{}</text>\n",
            Escaped(text)
        );
    }

    /// Draws a group that shows `hint` under the pointer.
    pub(super) fn hinted(&mut self, hint: &str, draw: impl FnOnce(&mut Self)) {
        put!(self.body, "<g><title>{}</title>\n", Escaped(hint));
        draw(self);
        put!(self.body, "</g>\n");
    }

    /// The finished element.
    pub(super) fn finish(self) -> String {
        let Self { id, width, height, head, body } = self;
        format!(
            "<svg viewBox=\"0 0 {width:.0} {height:.0}\" width=\"{width:.0}\" height=\"{height:.0}\" \
             role=\"img\" \
             aria-labelledby=\"{id}-title {id}-desc\">\n{head}{body}</svg>\n"
        )
    }
}

/// A linear map from a range of values to a range of user units; values outside are held at its ends.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scale {
    lo: f64,
    hi: f64,
    from: f64,
    to: f64,
}

impl Scale {
    pub(super) fn new((lo, hi): (f64, f64), (from, to): (f64, f64)) -> Self {
        Self { lo, hi, from, to }
    }

    pub(super) fn at(&self, value: f64) -> f64 {
        let span = self.hi - self.lo;
        let t = if span > 0.0 { ((value - self.lo) / span).clamp(0.0, 1.0) } else { 0.0 };
        self.from + t * (self.to - self.from)
    }

    /// A scale over shares that holds all `values` with some air, from and to a multiple of 5%, at least 10
    /// points wide.
    pub(super) fn of_shares(values: impl Iterator<Item = f64>, range: (f64, f64)) -> Self {
        let (lo, hi) = values.fold((1.0f64, 0.0f64), |(lo, hi), v| (lo.min(v), hi.max(v)));
        let (lo, hi) = if lo > hi { (0.0, 1.0) } else { (lo, hi) };
        let lo = (((lo - 0.01) * 20.0).floor() / 20.0).clamp(0.0, 0.9);
        let hi = (((hi + 0.005) * 20.0).ceil() / 20.0).clamp(lo + 0.1, 1.0);
        Self::new((lo, hi), range)
    }

    /// Ticks at round shares, at most nine.
    pub(super) fn share_ticks(&self) -> Vec<f64> {
        let span = self.hi - self.lo;
        let step = [0.02, 0.05, 0.1, 0.2].into_iter().find(|s| span / s < 8.5).unwrap_or(0.25);
        let first = (self.lo / step - 1e-9).ceil() as u32;
        let last = (self.hi / step + 1e-9).floor() as u32;
        (first..=last).map(|i| f64::from(i) * step).collect()
    }

    /// Where the axis starts.
    pub(super) fn start(&self) -> f64 {
        self.lo
    }
}
