//! What texts say, by the encoder's vectors: how well each label fits a text. The encoder is public and so are the labels'
//! names; nothing here reads a record.

use sheaf_data::Backbone;
use sheaf_text::{Labelled, Labels, UnitVectors};

use crate::{error::Error, models::Tools};

/// Cosines are divided by this before they become probabilities: a label whose cosine is higher by 0.05 is `e` times as
/// likely.
const TEMPERATURE: f64 = 0.05;

/// The directions of the labels: of their names, and of the texts that are known to be theirs.
pub(super) struct Meaning {
    /// `[labels, dim]`, of length one.
    directions: Vec<Vec<f64>>,
}

/// Vectors of texts.
pub(super) fn embed(tools: &Tools<'_>, encoder: &Backbone, texts: &[&str]) -> Result<UnitVectors, Error> {
    let (dim, rows) = tools.models.embed(encoder, texts, tools.stop)?;
    Ok(UnitVectors::new(&rows, dim)?)
}

impl Meaning {
    /// By the labels' names, each with texts that are known to be the label's. A name weighs as much as its texts together.
    pub(super) fn new(names: &UnitVectors, known: &[(usize, &[f32])]) -> Self {
        let mut directions: Vec<Vec<f64>> =
            (0..names.len()).map(|label| names.row(label).iter().map(|v| f64::from(*v)).collect()).collect();
        for (label, direction) in directions.iter_mut().enumerate() {
            let texts: Vec<&[f32]> =
                known.iter().filter(|(of, _)| *of == label).map(|(_, row)| *row).collect();
            for text in &texts {
                direction.iter_mut().zip(*text).for_each(|(d, v)| *d += f64::from(*v) / texts.len() as f64);
            }
            let length = direction.iter().map(|v| v * v).sum::<f64>().sqrt().max(f64::MIN_POSITIVE);
            direction.iter_mut().for_each(|v| *v /= length);
        }
        Self { directions }
    }

    /// Log-probability of each label for a text, nats.
    pub(super) fn log_p(&self, text: &[f32]) -> Vec<f64> {
        let logits: Vec<f64> = self
            .directions
            .iter()
            .map(|direction| {
                direction.iter().zip(text).map(|(d, v)| d * f64::from(*v)).sum::<f64>() / TEMPERATURE
            })
            .collect();
        let most = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum = logits.iter().map(|logit| (logit - most).exp()).sum::<f64>().ln() + most;
        logits.into_iter().map(|logit| logit - sum).collect()
    }

    /// By how much another label fits a text better than its own, nats; 0 where none does.
    pub(super) fn doubt(&self, text: &[f32], label: usize) -> f64 {
        let log_p = self.log_p(text);
        let own = log_p.get(label).copied().unwrap_or(f64::NEG_INFINITY);
        log_p.into_iter().fold(f64::NEG_INFINITY, f64::max) - own
    }
}

/// Texts with other names for their labels: `to` has at a label's place what `from` calls it otherwise.
pub(super) fn renamed(texts: &[Labelled], from: &[String], to: &[String]) -> Result<Vec<Labelled>, Error> {
    let name = |text: &Labelled| {
        let place = from.iter().position(|label| *label == text.label)?;
        Some(Labelled::new(text.text.clone(), to.get(place)?.clone()))
    };
    let unknown = |text: &Labelled| Error::bug(format!("{:?} is no label here", text.label));
    texts.iter().map(|text| name(text).ok_or_else(|| unknown(text))).collect()
}

/// The label of each text, by its place in `labels`.
pub(super) fn places(labels: &Labels, texts: &[Labelled]) -> Result<Vec<usize>, Error> {
    texts
        .iter()
        .map(|text| {
            labels.index(&text.label).ok_or_else(|| Error::bug(format!("{:?} is no label here", text.label)))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_fits_the_label_that_it_lies_near() {
        let names = UnitVectors::new(&[1.0, 0.0, 0.0, 1.0], 2).unwrap();
        let meaning = Meaning::new(&names, &[]);
        let text = [0.8_f32, 0.6];
        let log_p = meaning.log_p(&text);
        assert!((log_p[0].exp() + log_p[1].exp() - 1.0).abs() < 1e-12);
        assert!((log_p[0] - log_p[1] - 0.2 / TEMPERATURE).abs() < 1e-6);
        assert_eq!(meaning.doubt(&text, 0), 0.0);
        assert!((meaning.doubt(&text, 1) - 0.2 / TEMPERATURE).abs() < 1e-6);
        // A text that is known to be of the second label draws its direction nearer.
        let known = Meaning::new(&names, &[(1, &text)]);
        assert!(known.doubt(&text, 1) < meaning.doubt(&text, 1));
    }
}
