//! Private Evolution at the site (Xie et al. 2024, arXiv 2403.01749): no model is tuned, records vote for candidates.
//!
//! **Claim.** The votes of all rounds of a run are together as private as the ledger's `Event::Gaussian` says, add/remove of one
//! privacy unit with all its records.
//!
//! **Why it holds.** In each round a unit adds at most [`VOTE_UNIT`] to the whole vector, shared among its records' candidates, so
//! its length is at most that; integers get discrete Gaussian noise of the ledger's scale for a token of the ledger. Candidates
//! are made of released votes alone. How many records a class has is in the noised votes, and paid for with them. In a secure
//! sum every site adds a share of that noise ([`mechanism::discrete_gaussian_share`]), and the sum is what is released.
//!
//! **Test.** Below: a unit of several records has one vote.

use sheaf_data::{Dataset, ROW_UNIT, Source, Split};
use sheaf_privacy::mechanism::{self, Sensitivity};
use sheaf_proto::{
    afl::SumsSpec,
    fdkt::{VOTE_UNIT, VoteSpec, Votes},
};
use sheaf_text::from_lines;

use super::{
    super::{Assignment, Resources, parse},
    transfer,
};
use crate::{egress::Made, error::AgentError, features};

/// Records compared at a time.
const BLOCK: usize = 256;

/// Answers the phase.
pub(super) fn vote(
    assignment: &Assignment,
    source: &Source,
    resources: &Resources<'_>,
    cancelled: &dyn Fn() -> bool,
) -> Result<(Votes, Made), AgentError> {
    let VoteSpec { sums, left } = parse(&assignment.spec)?;
    let candidates = assignment
        .inputs
        .first()
        .ok_or_else(|| AgentError::Task("the vote came without candidates".to_owned()))?;
    let (votes, made) = exact(&sums, candidates, source, resources, cancelled)?;
    if sums.privacy.is_none() {
        return Ok((Votes { votes }, made));
    }
    let (votes, made) = resources.purse()?.draw(left, |token| {
        mechanism::discrete_gaussian(&votes, bound()?, token).map_err(|e| AgentError::Task(e.to_string()))
    })?;
    Ok((Votes { votes }, made))
}

/// This site's votes for a secure sum of at least `least` sites, with its share of the noise that the sum then has. Alone they
/// have too little: they must not be seen unmasked. Charged as if the site had added all of it.
pub(super) fn share(
    VoteSpec { sums, left }: &VoteSpec,
    (candidates, least): (&[u8], u32),
    source: &Source,
    resources: &Resources<'_>,
    cancelled: &dyn Fn() -> bool,
) -> Result<(Vec<i64>, Made), AgentError> {
    let (votes, made) = exact(sums, candidates, source, resources, cancelled)?;
    if sums.privacy.is_none() {
        return Ok((votes, made));
    }
    resources.purse()?.draw(*left, |token| {
        let shared = mechanism::discrete_gaussian_share(&votes, bound()?, least, token);
        shared.map_err(|e| AgentError::Task(e.to_string()))
    })
}

/// What one unit may move of the votes, in L2.
fn bound() -> Result<Sensitivity, AgentError> {
    Sensitivity::new(VOTE_UNIT as f64).map_err(|e| AgentError::Task(e.to_string()))
}

/// The labels of the candidates that a vote is about, in their order.
///
/// # Errors
/// [`AgentError::Task`] for lines that are none.
pub(super) fn labels(candidates: &[u8]) -> Result<Vec<String>, AgentError> {
    let written = from_lines(candidates)
        .map_err(|e| AgentError::Task(format!("the candidates cannot be read: {e}")))?;
    Ok(written.into_iter().map(|candidate| candidate.label).collect())
}

/// The votes without noise.
fn exact(
    sums: &SumsSpec,
    candidates: &[u8],
    source: &Source,
    resources: &Resources<'_>,
    cancelled: &dyn Fn() -> bool,
) -> Result<(Vec<i64>, Made), AgentError> {
    let labels = labels(candidates)?;
    let candidates = transfer::read(candidates, sums, resources, cancelled)?;
    if candidates.len() != labels.len() {
        return Err(AgentError::Task("the candidates cannot all be read".to_owned()));
    }
    let opened = features::open(source, &sums.schema, resources, cancelled)?;
    let unit = sums.privacy.as_ref().map_or(ROW_UNIT, |privacy| privacy.unit.as_str());
    let votes = count(sums, unit, &opened.dataset, (&candidates, &labels), cancelled)?;
    Ok((votes, Made::OfRows(opened.dataset.rows(Split::Train).len() as u64)))
}

/// The exact votes. A record whose label has no candidate votes for none.
fn count(
    spec: &SumsSpec,
    unit: &str,
    own: &Dataset,
    (candidates, labels): (&Dataset, &[String]),
    cancelled: &dyn Fn() -> bool,
) -> Result<Vec<i64>, AgentError> {
    let all: Vec<usize> = (0..candidates.len()).collect();
    let places = spec.encoding.inputs(candidates, &all)?;
    let dim = spec.encoding.input_dim();
    let mut votes = vec![0_i64; labels.len()];
    let units = own.units(unit, Split::Train)?;
    for units in units.chunks(BLOCK) {
        if cancelled() {
            return Err(AgentError::Cancelled);
        }
        for rows in units {
            let inputs = spec.encoding.inputs(own, rows)?;
            let share = VOTE_UNIT / rows.len().max(1) as i64;
            for (row, input) in rows.iter().zip(inputs.chunks_exact(dim)) {
                let Some(label) = own.labels().get(*row) else { continue };
                if let Some(nearest) = nearest(input, label, (&places, labels)) {
                    votes[nearest] += share;
                }
            }
        }
    }
    Ok(votes)
}

/// The candidate of a label with the largest cosine; features of texts have length one.
fn nearest(input: &[f64], label: &str, (places, labels): (&[f64], &[String])) -> Option<usize> {
    let cosine = |place: &[f64]| input.iter().zip(place).map(|(a, b)| a * b).sum::<f64>();
    let of_label = places.chunks_exact(input.len()).zip(labels).enumerate();
    let of_label = of_label.filter(|(_, (_, of))| *of == label);
    of_label.map(|(at, (place, _))| (at, cosine(place))).max_by(|a, b| a.1.total_cmp(&b.1)).map(|(at, _)| at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> SumsSpec {
        let schema: sheaf_data::Schema =
            toml::from_str("text_dim = 64\n[declared]\nclasses = ['a', 'b']\n").unwrap();
        let encoding = sheaf_data::Encoding::declared(&schema).unwrap().unwrap();
        let features = sheaf_analytic::FeatureSpec {
            input_dim: encoding.input_dim(),
            map: sheaf_analytic::FeatureMap::Identity,
            normalize: sheaf_analytic::Normalize::L2,
            bits: 20,
            bias: false,
        };
        SumsSpec { schema, encoding, features, privacy: None }
    }

    fn dataset(lines: &[(&str, &str, &str)]) -> Dataset {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.jsonl");
        let line = |(id, text, label): &(&str, &str, &str)| {
            format!("{{\"id\":\"{id}\",\"text\":\"{text}\",\"label\":\"{label}\",\"split\":\"train\"}}\n")
        };
        std::fs::write(&path, lines.iter().map(line).collect::<String>()).unwrap();
        let assets = sheaf_data::AssetStore::new(folder.path().to_owned(), None);
        Source::Text { path: Some(path), asset: None }.open(&spec().schema, &assets).unwrap()
    }

    #[test]
    fn a_unit_has_one_vote_whatever_it_has_and_it_goes_to_its_own_label() {
        let candidates = dataset(&[
            ("1", "the card has not arrived", "a"),
            ("2", "what is the exchange rate", "a"),
            ("3", "the card has not arrived", "b"),
        ]);
        let labels: Vec<String> = ["a", "a", "b"].map(str::to_owned).to_vec();
        let own = dataset(&[
            ("p", "my card has not arrived", "a"),
            ("p", "the exchange rate please", "a"),
            ("q", "the card", "b"),
            ("r", "the card", "c"),
        ]);
        let votes = |unit| count(&spec(), unit, &own, (&candidates, &labels), &|| false).unwrap();
        assert_eq!(votes("id"), [VOTE_UNIT / 2, VOTE_UNIT / 2, VOTE_UNIT]);
        assert_eq!(
            votes(ROW_UNIT),
            [VOTE_UNIT, VOTE_UNIT, VOTE_UNIT],
            "a label without candidates has no vote"
        );
        assert!(matches!(
            count(&spec(), "id", &own, (&candidates, &labels), &|| true),
            Err(AgentError::Cancelled)
        ));
    }
}
