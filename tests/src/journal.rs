//! A run's journal, read while no coordinator writes it.

use std::collections::{BTreeMap, BTreeSet};

use sheaf_coordinator::{home::Home, run::event::Event, store::Database};
use sheaf_transport::identity::SiteName;

/// Who has answered which task, by the task's key. An answer that counts twice, a gap in the journal and anything that
/// went wrong on the way fail the test.
pub fn answers(home: &Home, run: &str) -> BTreeMap<String, BTreeSet<SiteName>> {
    let journal = Database::open(&home.database()).unwrap().journal(run).unwrap();
    let mut answers: BTreeMap<String, BTreeSet<SiteName>> = BTreeMap::new();
    for (position, entry) in journal.iter().enumerate() {
        assert_eq!(entry.seq, position as i64, "the journal has no gaps");
        match &entry.event {
            Event::Delivered { site, key, .. } => {
                let first = answers.entry(key.clone()).or_default().insert(site.clone());
                assert!(first, "{site} is counted twice for {key}");
            }
            Event::Declined { site, reason } => panic!("{site} declined: {reason}"),
            Event::DeadlinePassed { key } => panic!("the deadline of {key} passed"),
            Event::Failed { reason } => panic!("failed: {reason}"),
            _ => {}
        }
    }
    answers
}
