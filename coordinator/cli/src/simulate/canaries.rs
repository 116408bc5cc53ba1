//! Canaries: invented sentences with a secret, each in the place of one of a site's training records. A generator that has learnt
//! records by heart writes them; the released texts are searched for the secrets.

use anyhow::{Context as _, Result, bail};
use sheaf_coordinator::report::Canaries;
use sheaf_data::{Dataset, Schema, SiteRows, Split};
use sheaf_text::{overlap::longest_run, words::words};
use sheaf_transport::digest::sha256_hex;

use super::is_about;

/// Words of a secret: 20 bits, which no text has by chance.
const WORDS: usize = 4;
/// What secrets are drawn from: words that neither a customer nor a physician writes.
const NOUNS: [&str; 32] = [
    "anvil", "badger", "bonfire", "canyon", "cobalt", "dolphin", "ember", "falcon", "glacier", "harbor",
    "igloo", "jasmine", "kettle", "lantern", "meadow", "nectar", "orchid", "pebble", "quartz", "raven",
    "saddle", "thistle", "tundra", "umbrella", "velvet", "walnut", "willow", "yarn", "zebra", "cactus",
    "magnet", "puzzle",
];

/// Plants so many in the training records of every site, among those of the classes that the plan is about: no generator learns
/// from others.
pub(super) fn plant(dataset: &mut Dataset, sites: &[SiteRows], schema: &Schema, each: usize) -> Result<()> {
    if each == 0 {
        return Ok(());
    }
    for site in sites {
        let training: Vec<usize> = site
            .rows
            .iter()
            .copied()
            .filter(|row| dataset.split()[*row] == Split::Train && is_about(dataset, schema, *row))
            .collect();
        if training.len() < each {
            bail!(
                "[simulate] canaries = {each}, but site {} has {} training records to put them in the place of",
                site.name,
                training.len()
            );
        }
        // Spread over the site's records, so that they stand under several labels.
        for (number, row) in training.iter().step_by(training.len() / each).take(each).enumerate() {
            dataset
                .replace_text(*row, &sentence(&secret(&site.name, number)))
                .context("[simulate] canaries")?;
        }
    }
    Ok(())
}

/// What stands in the released texts of the secrets that were planted.
pub(super) fn searched<'a>(
    sites: &[SiteRows],
    each: usize,
    released: impl Iterator<Item = &'a str>,
) -> Canaries {
    let released: Vec<Vec<String>> = released.map(words).collect();
    let runs =
        sites.iter().flat_map(|site| (0..each).map(|number| secret(&site.name, number))).map(|secret| {
            let run = |text: &Vec<String>| longest_run(&secret, text).map_or(0, |run| run.len);
            released.iter().map(run).max().unwrap_or(0)
        });
    let runs: Vec<usize> = runs.collect();
    Canaries {
        planted: runs.len(),
        words: WORDS,
        found: runs.iter().filter(|run| **run == WORDS).count(),
        longest_run: runs.iter().copied().max().unwrap_or(0),
    }
}

fn sentence(secret: &[String]) -> String {
    format!("The secret code is {}.", secret.join(" "))
}

/// The same on every machine.
fn secret(site: &str, number: usize) -> Vec<String> {
    let digest = sha256_hex(format!("sheaf canary 1 {site} {number}").as_bytes());
    let places =
        digest.as_bytes().chunks_exact(2).map(|pair| usize::from(pair[0]) * 16 + usize::from(pair[1]));
    places.take(WORDS).map(|place| NOUNS[place % NOUNS.len()].to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sites(dataset: &Dataset) -> Vec<SiteRows> {
        vec![SiteRows { name: "a".to_owned(), rows: (0..dataset.len()).collect() }]
    }

    fn schema() -> Schema {
        toml::from_str("text_dim = 64\n[declared]\nclasses = ['x', 'y']\n").unwrap()
    }

    fn dataset(rows: usize) -> Dataset {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.jsonl");
        let line = |row| {
            let split = if row == 0 { "test" } else { "train" };
            let label = if row == 1 { "undeclared" } else { "x" };
            format!(
                "{{\"text\":\"record {row}\",\"answer\":\"answer {row}\",\"label\":\"{label}\",\"split\":\"{split}\"}}"
            )
        };
        let lines: Vec<String> = (0..rows).map(line).collect();
        let lines = lines.join("\n");
        std::fs::write(&path, lines).unwrap();
        let assets = sheaf_data::AssetStore::new(folder.path().to_owned(), None);
        sheaf_data::Source::Text { path: Some(path), asset: None }.open(&schema(), &assets).unwrap()
    }

    #[test]
    fn a_planted_secret_is_found_where_a_text_repeats_it_and_nowhere_else() {
        let mut dataset = dataset(9);
        let sites = sites(&dataset);
        plant(&mut dataset, &sites, &schema(), 3).unwrap();
        let texts: Vec<String> = (0..9).map(|row| dataset.text(row).unwrap().to_owned()).collect();
        assert_eq!(texts.iter().filter(|text| text.starts_with("The secret code is")).count(), 3);
        assert_eq!(
            texts[..2],
            ["record 0", "record 1"],
            "test records stay, and those that nothing is learnt from"
        );

        let clean = searched(&sites, 3, ["nothing of it"].into_iter());
        assert_eq!((clean.planted, clean.found, clean.longest_run), (3, 0, 0));
        let leaky = searched(&sites, 3, texts.iter().map(String::as_str));
        assert_eq!((leaky.found, leaky.longest_run), (3, WORDS));
        let half: String = secret("a", 1)[..2].join(" ");
        assert_eq!(searched(&sites, 3, [half.as_str()].into_iter()).longest_run, 2);
    }

    #[test]
    fn secrets_differ_and_too_many_are_refused() {
        let secrets: std::collections::BTreeSet<_> =
            (0..50).flat_map(|n| [secret("a", n), secret("b", n)]).collect();
        assert_eq!(secrets.len(), 100);
        let mut dataset = dataset(4);
        let sites = sites(&dataset);
        let none = vec![SiteRows { name: "none".to_owned(), rows: Vec::new() }];
        plant(&mut dataset, &none, &schema(), 0).unwrap();
        let error = plant(&mut dataset, &sites, &schema(), 3).unwrap_err().to_string();
        assert!(error.contains("site a has 2 training records"), "{error}");
    }
}
