//! The agent's memory, its egress gate and its hands, through what the crate shows to the outside.

#[cfg(test)]
mod tests {
    use std::{fs, path::Path, sync::Arc};

    use sheaf_agent::{
        budget::Budget,
        config::Config,
        egress::{self, Answer, Made, Private, Released},
        error::AgentError,
        link::Link,
        policy::{self, Permit},
        state::{Pending, State},
        worker::Worker,
    };
    use sheaf_data::AssetStore;
    use sheaf_proto::v1::Task;
    use sheaf_transport::digest::blob_id;
    use tempfile::TempDir;
    use tokio::sync::Semaphore;

    const AUTO: &str = "[data.data]\nkind = 'table'\npath = 'a.csv'\n[policy]\nworkloads = ['afl']\n\
        release = ['sums']\nmin_cohort = 3\nmin_rows = 10\napprove = 'auto'\n";

    fn config(text: &str) -> Config {
        Config::parse(text, Path::new(".")).unwrap()
    }

    fn task(run: &str, key: &str) -> Task {
        Task {
            run_id: run.into(),
            key: key.into(),
            workload: "afl".into(),
            dataset: "data".into(),
            cohort: 3,
            releases: vec!["sums".into()],
            max_result_bytes: 100,
            spec: Some(blob_id(b"spec").to_wire()),
            ..Task::default()
        }
    }

    fn permit(run: &str, key: &str) -> Permit {
        policy::check(&config(AUTO), &task(run, key)).unwrap()
    }

    fn answer(kind: &'static str, rows: u64, bytes: &[u8]) -> Answer {
        Answer { kind, bytes: Private::new(bytes.to_vec()), made: Made::OfRows(rows), seconds: 0.5 }
    }

    /// A state in a folder that lives as long.
    struct Site {
        folder: TempDir,
        state: State,
    }

    impl Site {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let state = State::open(folder.path(), true).unwrap();
            Self { folder, state }
        }

        fn release(&self, run: &str, key: &str, bytes: &[u8]) -> Released {
            egress::release(answer("sums", 10, bytes), &permit(run, key), &self.state).unwrap()
        }

        fn post(&self, run: &str, key: &str, bytes: &[u8]) {
            let released = self.release(run, key, bytes);
            self.state.post(run, key, &released, None).unwrap();
        }

        fn waiting(&self) -> Vec<(String, String)> {
            let pending = self.state.pending().unwrap();
            pending.into_iter().map(|p| (p.run_id, p.key)).collect()
        }

        fn first(&self) -> Pending {
            self.state.pending().unwrap().remove(0)
        }

        fn files(&self) -> usize {
            fs::read_dir(self.folder.path().join("outbox")).unwrap().count()
        }
    }

    fn pair(run: &str, key: &str) -> (String, String) {
        (run.to_owned(), key.to_owned())
    }

    #[test]
    fn the_gate_lets_out_what_the_permit_covers_and_records_it() {
        let site = Site::new();
        let permit = permit("r", "k");
        let denied = |answer: Answer| match egress::release(answer, &permit, &site.state) {
            Err(AgentError::Denied(reason)) => reason,
            Err(other) => panic!("{other}"),
            Ok(_) => panic!("it was let out"),
        };
        assert!(denied(answer("metrics", 10, b"x")).contains("metrics"));
        let few = denied(answer("sums", 9, b"x"));
        assert!(few.contains("10") && !few.contains('9'), "the number stays here: {few}");
        assert!(denied(answer("sums", 10, &[0; 101])).contains("100"));
        assert!(site.state.releases(10).unwrap().is_empty(), "nothing has left");

        let released = egress::release(answer("sums", 10, &[0; 100]), &permit, &site.state).unwrap();
        assert_eq!(released.blob(), blob_id(&[0; 100]));
        let log = site.state.releases(10).unwrap();
        assert_eq!(log.len(), 1);
        assert_eq!((log[0].run_id.as_str(), log[0].task.as_str()), ("r", "k"));
        assert_eq!((log[0].kind.as_str(), &log[0].blob), ("sums", &released.blob().to_string()));
    }

    #[test]
    fn an_answer_waits_through_a_restart_until_it_is_delivered() {
        let site = Site::new();
        site.post("r", "one", b"1");
        site.post("r", "two", b"2");
        let again = State::open(site.folder.path(), true).unwrap();
        let pending = again.pending().unwrap();
        let keys: Vec<_> = pending.iter().map(|p| p.key.as_str()).collect();
        assert_eq!(keys, ["one", "two"], "oldest first");
        assert_eq!(fs::read(&pending[0].path).unwrap(), b"1");
        assert_eq!(again.answer("r", "one").unwrap().as_ref(), Some(&pending[0]));
        assert_eq!(again.answer("r", "three").unwrap(), None);

        again.delivered(&pending[0], "accepted").unwrap();
        assert_eq!(site.waiting(), [pair("r", "two")]);
        assert_eq!(site.files(), 1, "the bytes of the first are gone");
        assert_eq!(again.answer("r", "one").unwrap(), None);
    }

    #[test]
    fn two_runs_with_the_same_answer_share_its_bytes_until_both_have_it() {
        let site = Site::new();
        site.post("r1", "k", b"same");
        site.post("r2", "k", b"same");
        assert_eq!(site.files(), 1);
        site.state.delivered(&site.first(), "accepted").unwrap();
        assert_eq!(site.waiting(), [pair("r2", "k")]);
        assert_eq!(fs::read(site.first().path).unwrap(), b"same");
        site.state.delivered(&site.first(), "accepted").unwrap();
        assert_eq!(site.files(), 0);
    }

    /// A site that was too late and is taken in with `sheaf run add`, or was withdrawn and comes back, is asked
    /// the same question as before.
    #[test]
    fn a_task_that_is_asked_again_is_answered_again() {
        for second in [&b"1"[..], b"2"] {
            let site = Site::new();
            site.post("r", "k", b"1");
            site.state.delivered(&site.first(), "late: closed").unwrap();
            assert_eq!(site.state.answer("r", "k").unwrap(), None, "it is computed anew");
            site.post("r", "k", second);
            assert_eq!(site.waiting(), [pair("r", "k")]);
            assert_eq!(fs::read(site.first().path).unwrap(), second);
        }
    }

    /// The process ends between the note of the verdict and the removal of the bytes, or another run still
    /// wants them.
    #[test]
    fn a_task_that_is_asked_again_while_its_bytes_are_there_is_answered_again() {
        let site = Site::new();
        site.post("r1", "k", b"same");
        site.post("r2", "k", b"same");
        site.state.delivered(&site.first(), "late: closed").unwrap();
        if site.state.answer("r1", "k").unwrap().is_none() {
            site.post("r1", "k", b"same");
        }
        assert!(site.waiting().contains(&pair("r1", "k")));
    }

    #[test]
    fn a_person_decides_for_one_run_and_the_last_word_counts() {
        let site = Site::new();
        let ask = |run: &str, key: &str, columns: &[&str]| {
            let columns: Vec<_> = columns.iter().map(|name| (*name).to_owned()).collect();
            site.state.request_approval(&task(run, key), &columns).unwrap();
        };
        ask("r1", "one", &["age"]);
        ask("r1", "two", &["age", "sex"]);
        ask("r2", "one", &[]);
        let asked = || -> Vec<String> {
            let requests = site.state.approval_requests().unwrap();
            requests.into_iter().map(|request| request.run_id).collect()
        };
        assert_eq!(asked(), ["r1", "r2"], "a run asks once, not a task");
        assert_eq!(site.state.approval_requests().unwrap()[0].columns, "age, sex");
        assert_eq!(site.state.decision("r1").unwrap(), None);
        site.state.decide("r1", true).unwrap();
        assert_eq!(site.state.decision("r1").unwrap(), Some(true));
        assert_eq!(site.state.decision("r2").unwrap(), None);
        assert_eq!(asked(), ["r2"]);
        site.state.decide("r1", false).unwrap();
        assert_eq!(site.state.decision("r1").unwrap(), Some(false));
        site.state.forget_requests(Some("r1")).unwrap();
        assert_eq!(asked(), ["r2"]);
        site.state.forget_requests(None).unwrap();
        assert!(asked().is_empty());
        assert_eq!(site.state.decision("r1").unwrap(), Some(false), "what was said stays");
    }

    #[test]
    fn a_state_of_a_newer_version_is_refused() {
        let site = Site::new();
        site.state.note_status("link", "up").unwrap();
        assert_eq!(site.state.status("link").unwrap().unwrap().0, "up");
        assert_eq!(site.state.status("none").unwrap(), None);
        let database = rusqlite::Connection::open(site.folder.path().join("agent.db")).unwrap();
        database.pragma_update(None, "user_version", 99).unwrap();
        let error = State::open(site.folder.path(), true).err().unwrap().to_string();
        assert!(error.contains("newer"), "{error}");
    }

    /// A worker whose tasks wait for a link that never comes.
    fn worker(folder: &Path) -> Worker {
        let config = Config { home: folder.to_owned(), ..config(AUTO) };
        let state = State::open(folder, false).unwrap();
        let assets = AssetStore::new(folder.join("assets"), None);
        let budget = Budget::open(folder).unwrap();
        Worker::new(config, state, budget, Link::default(), assets, Arc::new(Semaphore::new(1)), None)
    }

    async fn settle() {
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_task_is_done_once_however_often_it_is_offered() {
        let folder = tempfile::tempdir().unwrap();
        let worker = worker(folder.path());
        for _ in 0..3 {
            worker.take(task("r", "k"));
        }
        settle().await;
        assert_eq!(worker.busy(), 1);
        worker.cancel("r", "another", "over");
        settle().await;
        assert_eq!(worker.busy(), 1);
        worker.cancel("r", "k", "over");
        settle().await;
        assert_eq!(worker.busy(), 0);
        worker.take(task("r", "k"));
        settle().await;
        assert_eq!(worker.busy(), 1, "offered again later");
        worker.close();
        worker.take(task("r", "another"));
        settle().await;
        assert_eq!(worker.busy(), 1, "nothing new while the agent stops");
    }

    /// Both messages lie in the session's stream and are read without a pause.
    #[tokio::test]
    async fn a_task_that_is_cancelled_and_offered_again_at_once_is_done() {
        let folder = tempfile::tempdir().unwrap();
        let worker = worker(folder.path());
        worker.take(task("r", "k"));
        settle().await;
        worker.cancel("r", "k", "the run went on");
        worker.take(task("r", "k"));
        settle().await;
        assert_eq!(worker.busy(), 1);
    }
}
