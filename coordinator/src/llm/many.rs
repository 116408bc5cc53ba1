//! Many prompts at once.

use futures::{StreamExt as _, stream};
use tokio_util::sync::CancellationToken;

use super::{Completion, Llm, LlmError, Prompt, Totals};

/// How far a list of prompts is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Progress {
    /// Prompts with an outcome, good or bad.
    pub done: usize,
    /// Those among them that failed: a caller may cancel when there are too many.
    pub failed: usize,
    /// Prompts in all.
    pub all: usize,
    /// What the model has used so far, in this process.
    pub totals: Totals,
}

/// Asks all prompts, as many at once as the model takes, and gives the outcomes in the order of the prompts. One that
/// fails does not fail the others.
///
/// `progress` is called after each outcome. When `cancel` is called, requests on their way are dropped at once, and
/// prompts without an outcome get [`LlmError::Cancelled`]; under a [`super::Cached`] model, a later call goes on there.
pub async fn complete_all(
    llm: &(impl Llm + ?Sized),
    prompts: &[Prompt],
    progress: &mut (dyn FnMut(Progress) + Send),
    cancel: &CancellationToken,
) -> Vec<Result<Completion, LlmError>> {
    let mut outcomes = vec![Err(LlmError::Cancelled); prompts.len()];
    let (mut done, mut failed) = (0, 0);
    let ask = |at: usize| async move { (at, llm.complete(&prompts[at]).await) };
    let mut answers = stream::iter(0..prompts.len()).map(ask).buffer_unordered(llm.concurrency().max(1));
    loop {
        let (at, outcome) = tokio::select! {
            biased;
            () = cancel.cancelled() => break,
            next = answers.next() => match next {
                Some(answer) => answer,
                None => break,
            },
        };
        done += 1;
        failed += usize::from(outcome.is_err());
        outcomes[at] = outcome;
        progress(Progress { done, failed, all: prompts.len(), totals: llm.totals() });
    }
    outcomes
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use super::*;
    use crate::llm::{Cached, stub::Scripted};

    fn prompts(n: usize) -> Vec<Prompt> {
        (0..n).map(|i| Prompt::new(format!("{i}"))).collect()
    }

    #[tokio::test]
    async fn outcomes_come_in_the_order_of_the_prompts_and_one_failure_is_one_failure() {
        let model = Arc::new(Scripted::new(4, |prompt, _| match prompt.user.as_str() {
            "3" => Err(LlmError::Refused { what: "not that one".to_owned() }),
            text => Ok(format!("<{text}>")),
        }));
        // The first prompts take longest.
        model.takes(|prompt| Duration::from_millis(30 - prompt.user.parse::<u64>().unwrap()));
        let asked = model.clone();
        // On a task of its own: the future is Send.
        let (outcomes, seen) = tokio::spawn(async move {
            let mut seen = Vec::new();
            let mut progress = |p: Progress| seen.push((p.done, p.failed, p.all));
            let outcomes = complete_all(&asked, &prompts(20), &mut progress, &CancellationToken::new()).await;
            (outcomes, seen)
        })
        .await
        .unwrap();
        for (at, outcome) in outcomes.iter().enumerate() {
            match at {
                3 => assert!(matches!(outcome, Err(LlmError::Refused { .. }))),
                _ => assert_eq!(outcome.as_ref().unwrap().text, format!("<{at}>")),
            }
        }
        assert_eq!(seen.iter().map(|(done, ..)| *done).collect::<Vec<_>>(), (1..=20).collect::<Vec<_>>());
        assert_eq!(seen.last(), Some(&(20, 1, 20)));
        assert_eq!(model.most_at_once(), 4);
    }

    #[tokio::test]
    async fn cancelling_stops_at_once_and_a_second_call_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let model = Arc::new(Scripted::echo(2));
        model.takes(|prompt| Duration::from_millis(if prompt.user == "5" { 60_000 } else { 1 }));
        let cached = Cached::open(model.clone(), folder.path()).unwrap();
        let cancel = CancellationToken::new();
        let mut progress = |p: Progress| {
            if p.done == 4 {
                cancel.cancel();
            }
        };
        let outcomes = tokio::time::timeout(
            Duration::from_secs(10),
            complete_all(&cached, &prompts(20), &mut progress, &cancel),
        )
        .await
        .expect("it does not wait for the slow one");
        let answered = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
        assert_eq!((outcomes.len(), answered), (20, 4));
        assert!(outcomes.iter().all(|o| o.is_ok() || *o == Err(LlmError::Cancelled)));

        model.takes(|_| Duration::ZERO);
        let cached = Cached::open(model.clone(), folder.path()).unwrap();
        let outcomes = complete_all(&cached, &prompts(20), &mut |_| (), &CancellationToken::new()).await;
        assert!(outcomes.iter().all(Result::is_ok));
        assert!(cached.totals().cache_hits >= 4);
        for (at, outcome) in outcomes.iter().enumerate() {
            assert_eq!(outcome.as_ref().unwrap().text, format!("{at}"));
        }
    }

    #[tokio::test]
    async fn nothing_is_asked_under_a_cancelled_token() {
        let model = Scripted::echo(2);
        let cancel = CancellationToken::new();
        cancel.cancel();
        let outcomes = complete_all(&model as &dyn Llm, &prompts(3), &mut |_| (), &cancel).await;
        assert_eq!(outcomes, vec![Err(LlmError::Cancelled); 3]);
        assert_eq!(model.asked(), 0);
    }
}
