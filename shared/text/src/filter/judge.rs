use serde::{Deserialize, Serialize};

use super::keep::parse_keep;
use super::score::Scored;
use crate::error::TextError;
use crate::funnel::Step;

/// Which filter decided on a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Used {
    /// A language model's keep list.
    Model {
        /// The answer that could be read, counted from 1.
        attempt: u32,
    },
    /// Scores, since no answer could be read, or none was asked for.
    Scores {
        /// Answers that could not be read.
        unread: u32,
        /// Why the last of them could not.
        reason: Option<String>,
    },
}

/// What became of a cluster: every cluster gets one, also when its judge's answers are lost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterReport {
    /// The cluster.
    pub cluster: usize,
    /// Its members, by their places in the pool.
    pub members: Vec<usize>,
    /// Those that go on.
    pub kept: Vec<usize>,
    /// What decided.
    pub used: Used,
}

/// What to do after an answer.
#[must_use = "a cluster whose answer cannot be read must be asked for again or fall back"]
#[derive(Debug, Clone, PartialEq)]
pub enum Next {
    /// The answer was read: this is the cluster's result.
    Decided(ClusterReport),
    /// It could not be read: ask again.
    AskAgain(TextError),
    /// It could not be read and was the last: use [`ClusterJudge::fall_back`].
    FallBack(TextError),
}

/// One cluster before a language model. An answer that cannot be read is asked for again, then scores decide: a cluster is
/// never lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterJudge {
    cluster: usize,
    members: Vec<usize>,
    attempts: u32,
    unread: u32,
    reason: Option<String>,
}

impl ClusterJudge {
    /// A cluster of the pool's samples `members`, with up to `attempts` answers; 0 goes to the scores at once.
    pub fn new(cluster: usize, members: Vec<usize>, attempts: u32) -> Self {
        Self { cluster, members, attempts, unread: 0, reason: None }
    }

    /// The members, by their places in the pool, in the order of the prompt.
    pub fn members(&self) -> &[usize] {
        &self.members
    }

    /// Takes an answer to [`keep_prompt`](super::keep_prompt).
    pub fn answer(&mut self, answer: &str) -> Next {
        match parse_keep(answer, self.members.len()) {
            Ok(keep) => Next::Decided(ClusterReport {
                cluster: self.cluster,
                members: self.members.clone(),
                kept: keep.into_iter().map(|index| self.members[index]).collect(),
                used: Used::Model { attempt: self.unread + 1 },
            }),
            Err(error) => {
                self.unread += 1;
                self.reason = Some(error.to_string());
                if self.unread < self.attempts { Next::AskAgain(error) } else { Next::FallBack(error) }
            }
        }
    }

    /// Decides by the scores of the whole pool. Errors: a member that was not scored.
    pub fn fall_back(self, scored: &Scored) -> Result<ClusterReport, TextError> {
        let got = scored.decisions.len();
        if let Some(expected) =
            self.members.iter().map(|member| member + 1).filter(|needed| *needed > got).max()
        {
            return Err(TextError::Length { what: "scored samples", expected, got });
        }
        let kept =
            self.members.iter().copied().filter(|&member| scored.decisions[member].is_kept()).collect();
        let used = Used::Scores { unread: self.unread, reason: self.reason };
        Ok(ClusterReport { cluster: self.cluster, members: self.members, kept, used })
    }
}

/// The clusters as one step of a funnel, with what was dropped by which filter.
pub fn funnel_step(reports: &[ClusterReport]) -> Step {
    let mut step = Step::new("filter", reports.iter().map(|report| report.members.len()).sum());
    for report in reports {
        let reason = match report.used {
            Used::Model { .. } => "not on the model's keep list",
            Used::Scores { .. } => "dropped by scores",
        };
        (report.kept.len()..report.members.len()).for_each(|_| step.drop_one(reason));
    }
    step
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filter::Decision;

    fn scored(kept: &[bool]) -> Scored {
        let dropped = Decision::Dropped { criterion: 0, value: 0.0, bound: 1.0 };
        let decisions = kept.iter().map(|&kept| if kept { Decision::Kept } else { dropped }).collect();
        Scored { decisions, steps: Vec::new() }
    }

    #[test]
    fn an_answer_that_is_read_decides_by_places_in_the_pool() {
        let mut judge = ClusterJudge::new(3, vec![4, 9, 11], 2);
        let Next::AskAgain(_) = judge.answer("the last two") else { panic!("not asked again") };
        let Next::Decided(report) = judge.answer("{\"keep\": [2, 1]}") else { panic!("not decided") };
        assert_eq!((report.cluster, report.kept), (3, vec![9, 11]));
        assert_eq!(report.used, Used::Model { attempt: 2 });
    }

    #[test]
    fn a_cluster_whose_answers_cannot_be_read_is_not_lost() {
        let mut judge = ClusterJudge::new(0, vec![0, 2], 2);
        assert!(matches!(judge.answer(""), Next::AskAgain(_)));
        assert!(matches!(judge.answer("{\"keep\": [5]}"), Next::FallBack(_)));
        let report = judge.clone().fall_back(&scored(&[false, false, true])).unwrap();
        assert_eq!(report.kept, [2]);
        let Used::Scores { unread: 2, reason: Some(reason) } = &report.used else {
            panic!("{:?}", report.used)
        };
        assert!(reason.contains("index 5"), "{reason}");
        assert!(matches!(
            judge.fall_back(&scored(&[true, true])),
            Err(TextError::Length { expected: 3, got: 2, .. })
        ));

        let step = funnel_step(&[report]);
        assert_eq!((step.given, step.kept()), (2, 1));
        assert_eq!(step.dropped["dropped by scores"], 1);
    }

    #[test]
    fn reports_say_which_filter_was_used() {
        let report =
            ClusterReport { cluster: 1, members: vec![1], kept: vec![], used: Used::Model { attempt: 1 } };
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["used"]["model"]["attempt"], 1);
        assert_eq!(funnel_step(&[report]).dropped["not on the model's keep list"], 1);
    }
}
