use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::error::TextError;
use crate::table::Markdown;

/// One step of a pipeline: how many samples came in, and what became of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// The step's name.
    pub name: String,
    /// Samples that came in.
    pub given: usize,
    /// Samples dropped, by reason.
    pub dropped: BTreeMap<String, usize>,
}

impl Step {
    /// A step that dropped nothing yet.
    pub fn new(name: impl Into<String>, given: usize) -> Self {
        Self { name: name.into(), given, dropped: BTreeMap::new() }
    }

    /// Counts one dropped sample.
    pub fn drop_one(&mut self, reason: impl Into<String>) {
        *self.dropped.entry(reason.into()).or_default() += 1;
    }

    /// Samples that went on.
    pub fn kept(&self) -> usize {
        self.given.saturating_sub(self.dropped.values().sum())
    }
}

/// The steps of a pipeline in order: what was dropped where, and why.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Funnel {
    /// The steps.
    pub steps: Vec<Step>,
}

impl Funnel {
    /// Adds a step.
    pub fn push(&mut self, step: Step) {
        self.steps.push(step);
    }

    /// Adds the counts of another funnel (of another site, cluster or batch), step by step of the same name.
    pub fn merge(&mut self, other: &Self) {
        for step in &other.steps {
            let at = self.steps.iter().position(|own| own.name == step.name).unwrap_or_else(|| {
                self.steps.push(Step::new(&step.name, 0));
                self.steps.len() - 1
            });
            let own = &mut self.steps[at];
            own.given += step.given;
            for (reason, count) in &step.dropped {
                *own.dropped.entry(reason.clone()).or_default() += count;
            }
        }
    }

    /// The funnel as a Markdown table, a row a step.
    pub fn markdown(&self) -> Result<String, TextError> {
        let mut table = Markdown::new(["step", "given", "dropped", "kept", "why"])?;
        for step in &self.steps {
            let why: Vec<_> =
                step.dropped.iter().map(|(reason, count)| format!("{reason}: {count}")).collect();
            let dropped: usize = step.dropped.values().sum();
            let counts = [step.given, dropped, step.kept()].map(|count| count.to_string());
            let [given, dropped, kept] = counts;
            table.row([step.name.clone(), given, dropped, kept, why.join(", ")])?;
        }
        Ok(table.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn funnels_of_sites_add_up_and_show() {
        let mut step = Step::new("clean", 5);
        step.drop_one("duplicate");
        step.drop_one("duplicate");
        let one = Funnel { steps: vec![step] };
        let mut all = one.clone();
        all.merge(&one);
        all.merge(&Funnel { steps: vec![Step::new("filter", 6)] });
        assert_eq!((all.steps[0].given, all.steps[0].kept()), (10, 6));
        assert_eq!(all.steps[1].kept(), 6);
        let shown = all.markdown().unwrap();
        assert!(shown.contains("duplicate: 4"), "{shown}");
        assert_eq!(shown.lines().count(), 4);
    }
}
