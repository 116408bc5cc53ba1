//! The policy gate: whether this site takes part in a task, decided before any record is touched.

use std::collections::BTreeSet;

use sheaf_proto::{
    afl::RELEASE_SUMS,
    fdkt,
    fedavg::RELEASE_UPDATES,
    privacy::PrivacySpec,
    rewardds::{self, RELEASE_PROXIES},
    secure,
    v1::Task,
};

use crate::{
    config::{ANY_MODEL, Approve, Config},
    error::AgentError,
};

/// Leave to answer one task. Made only by [`check`]; the egress gate asks for it.
#[derive(Debug, Clone)]
pub struct Permit {
    run_id: String,
    key: String,
    kinds: BTreeSet<String>,
    min_rows: u64,
    max_bytes: u64,
    needs_approval: bool,
    requires_noise: bool,
}

impl Permit {
    /// The run.
    pub fn run_id(&self) -> &str {
        &self.run_id
    }
    /// The task.
    pub fn key(&self) -> &str {
        &self.key
    }
    /// Whether a kind of output may leave for this task.
    pub fn covers(&self, kind: &str) -> bool {
        self.kinds.contains(kind)
    }
    /// Smallest number of training rows.
    pub const fn min_rows(&self) -> u64 {
        self.min_rows
    }
    /// Largest answer, bytes.
    pub const fn max_bytes(&self) -> u64 {
        self.max_bytes
    }
    /// Whether nothing may leave without noise that the ledger was charged for.
    pub const fn requires_noise(&self) -> bool {
        self.requires_noise
    }
    /// Whether a person must say yes first.
    pub const fn needs_approval(&self) -> bool {
        self.needs_approval
    }
}

/// Checks a task against the site's policy.
///
/// # Errors
/// [`AgentError::Denied`] with the rule that says no.
pub fn check(config: &Config, task: &Task) -> Result<Permit, AgentError> {
    let policy = &config.policy;
    let denied = |reason: String| Err(AgentError::Denied(reason));
    if !policy.workloads.contains(&task.workload) {
        return denied(format!("workload \"{}\" is not allowed at this site", task.workload));
    }
    if !config.data.contains_key(&task.dataset) {
        return denied(format!("this site has no data set \"{}\"", task.dataset));
    }
    if policy.datasets.as_ref().is_some_and(|allowed| !allowed.contains(&task.dataset)) {
        return denied(format!("data set \"{}\" may not be used", task.dataset));
    }
    if task.cohort < policy.min_cohort {
        return denied(format!(
            "the run has {} sites, this site asks for at least {}",
            task.cohort, policy.min_cohort
        ));
    }
    if let Some(kind) = task.releases.iter().find(|kind| !policy.release.contains(*kind)) {
        return denied(format!("output of kind \"{kind}\" may not leave this site"));
    }
    // Votes are statistics as a survey is, which is never summed; what fdkt measures are figures as of models that are.
    let summed = task.workload == fdkt::WORKLOAD
        && (task.phase.starts_with(fdkt::VOTE) || task.phase == fdkt::TRANSFER);
    // What brings the site something gives nothing of it away.
    let brings = task.workload == rewardds::WORKLOAD && task.phase == rewardds::DELIVER;
    let held = [RELEASE_SUMS, RELEASE_UPDATES, RELEASE_PROXIES];
    let single = |kind: &&String| !brings && (summed || held.contains(&kind.as_str()));
    if policy.require_secure_aggregation
        && secure::parse(&task.phase).is_none()
        && let Some(kind) = task.releases.iter().find(single)
    {
        return denied(format!(
            "output of kind \"{kind}\" leaves this site within secure sums alone; the plan needs secure_aggregation = true"
        ));
    }
    Ok(Permit {
        run_id: task.run_id.clone(),
        key: task.key.clone(),
        kinds: task.releases.iter().cloned().collect(),
        min_rows: policy.min_rows,
        max_bytes: task.max_result_bytes,
        needs_approval: policy.approve == Approve::Ask,
        requires_noise: policy.require_dp,
    })
}

/// Checks what a task's answer is to be paid for with, before any record is read.
///
/// # Errors
/// [`AgentError::Denied`] where the site asks for noise and the task for none.
pub fn check_privacy(config: &Config, privacy: Option<&PrivacySpec>) -> Result<(), AgentError> {
    match privacy {
        None if config.policy.require_dp => Err(AgentError::Denied(
            "this site takes part with differential privacy alone (require_dp): the plan needs a [privacy] section \
             that covers this phase"
                .to_owned(),
        )),
        _ => Ok(()),
    }
}

/// Checks the columns that a task would read against the site's list for the data set, if it has one.
///
/// # Errors
/// [`AgentError::Denied`] with the column.
pub fn check_columns(config: &Config, dataset: &str, columns: &[String]) -> Result<(), AgentError> {
    let Some(allowed) = config.policy.columns.get(dataset) else {
        return Ok(());
    };
    match columns.iter().find(|column| !allowed.contains(*column)) {
        Some(column) => {
            Err(AgentError::Denied(format!("column \"{column}\" of data set \"{dataset}\" may not be read")))
        }
        None => Ok(()),
    }
}

/// Checks the pre-trained models that a task would run.
///
/// # Errors
/// [`AgentError::Denied`] with the model.
pub fn check_models(config: &Config, models: &[String]) -> Result<(), AgentError> {
    let allowed = &config.policy.models;
    match models.iter().find(|model| !allowed.contains(ANY_MODEL) && !allowed.contains(*model)) {
        Some(model) => Err(AgentError::Denied(format!("model \"{model}\" may not run at this site"))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    type Change = fn(&mut Task);

    const CONFIG: &str = "[data.a]\nkind='table'\npath='a.csv'\n[data.b]\nkind='table'\npath='b.csv'\n[policy]\n\
        workloads=['afl']\ndatasets=['a']\nrelease=['sums']\nmin_cohort=3\napprove='auto'\ncolumns={a=['age']}";

    fn task() -> Task {
        Task {
            workload: "afl".into(),
            dataset: "a".into(),
            cohort: 3,
            releases: vec!["sums".into()],
            ..Task::default()
        }
    }

    #[test]
    fn every_rule_says_no_on_its_own() {
        let config = Config::parse(CONFIG, Path::new(".")).unwrap();
        let permit = check(&config, &task()).unwrap();
        assert!(permit.covers("sums") && !permit.covers("metrics") && !permit.needs_approval());
        let change: [(&str, Change); 5] = [
            ("workload", |t| t.workload = "fdkt".into()),
            ("no data set", |t| t.dataset = "c".into()),
            ("may not be used", |t| t.dataset = "b".into()),
            ("at least 3", |t| t.cohort = 2),
            ("metrics", |t| t.releases.push("metrics".into())),
        ];
        for (part, change) in change {
            let mut task = task();
            change(&mut task);
            let error = check(&config, &task).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
        let masked_only = CONFIG.replace("[policy]", "[policy]\nrequire_secure_aggregation=true");
        let masked_only = Config::parse(&masked_only, Path::new(".")).unwrap();
        let error = check(&masked_only, &Task { phase: "sums".into(), ..task() }).unwrap_err().to_string();
        assert!(error.contains("secure_aggregation = true"), "{error}");
        assert!(check(&masked_only, &Task { phase: "sums.advertise".into(), ..task() }).is_ok());
        let voting = CONFIG.replace("'afl'", "'fdkt'").replace("'sums'", "'statistics'");
        let voting = voting.replace("[policy]", "[policy]\nrequire_secure_aggregation=true");
        let voting = Config::parse(&voting, Path::new(".")).unwrap();
        let vote = |phase: &str| Task {
            workload: "fdkt".into(),
            phase: phase.into(),
            releases: vec!["statistics".into()],
            ..task()
        };
        assert!(check(&voting, &vote("vote-1")).is_err());
        assert!(check(&voting, &vote("vote-1.input")).is_ok());
        // A proxy leaves within a sum alone; what brings the site its target gives nothing away.
        let proxies = CONFIG.replace("'afl'", "'rewardds'").replace("'sums'", "'proxies'");
        let proxies = proxies.replace("[policy]", "[policy]\nrequire_secure_aggregation=true");
        let proxies = Config::parse(&proxies, Path::new(".")).unwrap();
        let round = |phase: &str| Task {
            workload: "rewardds".into(),
            phase: phase.into(),
            releases: vec!["proxies".into()],
            ..task()
        };
        assert!(check(&proxies, &round("generator-1")).is_err());
        assert!(check(&proxies, &round("generator-1.input")).is_ok());
        assert!(check(&proxies, &round("deliver")).is_ok());
        assert!(check_columns(&config, "a", &["age".into()]).is_ok());
        assert!(check_columns(&config, "a", &["age".into(), "name".into()]).is_err());
        assert!(check_columns(&config, "b", &["name".into()]).is_ok(), "no list, no limit");
        let models = ["minilm-l6".to_owned()];
        assert!(check_models(&config, &[]).is_ok());
        assert!(check_models(&config, &models).unwrap_err().to_string().contains("minilm-l6"));
        for allowed in ["minilm-l6", "any"] {
            let text = format!("[policy]\nmodels = ['{allowed}']");
            assert!(check_models(&Config::parse(&text, Path::new(".")).unwrap(), &models).is_ok());
        }
        assert!(
            check(&Config::parse("", Path::new(".")).unwrap(), &task()).is_err(),
            "nothing is allowed by default"
        );
    }
}
