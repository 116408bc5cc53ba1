//! What is drawn, and what each arm keeps of it.

use super::*;

fn count(reasons: &[(&str, usize)]) -> BTreeMap<String, usize> {
    reasons.iter().map(|(reason, count)| ((*reason).to_owned(), *count)).collect()
}

/// Queries by whether they are held out.
fn split(queries: &[sample::Query]) -> [BTreeSet<&str>; 2] {
    let of =
        |held: bool| queries.iter().filter(move |query| query.held == held).map(|query| query.query.as_str());
    [of(false).collect(), of(true).collect()]
}

fn names(examples: &[(String, String)]) -> BTreeSet<&str> {
    examples.iter().map(|(query, _)| query.as_str()).collect()
}

#[test]
fn what_will_not_do_is_dropped_and_the_funnel_adds_up() {
    let ran = run(&plan("arms = ['untuned']\n"));
    assert_eq!(ran.names(), ["start", "generator-1", "reward-1", "sample", "evaluate"]);
    let sampled: Sampled = ran.gave("sample");
    let steps = &sampled.funnel.steps;
    let [drawn, different, responses, left] = steps.as_slice() else { panic!("{steps:?}") };
    assert_eq!((drawn.given, &drawn.dropped), (40, &count(&[("not ended", 6), ("too short", 4)])));
    let dropped = count(&[("duplicate", 4), ("near-duplicate", 4), ("enough", 2)]);
    assert_eq!((different.given, &different.dropped), (drawn.kept(), &dropped));
    let dropped = count(&[("not ended", 16), ("empty", 6), ("duplicate", 4)]);
    assert_eq!((responses.given, &responses.dropped), (4 * different.kept(), &dropped));
    assert_eq!((left.given, &left.dropped), (different.kept(), &count(&[("no response", 2)])));
    assert_eq!(ran.report().funnel, sampled.funnel);

    let queries = ran.queries();
    assert_eq!(queries.len(), left.kept());
    assert_eq!(queries.iter().map(|query| query.candidates.len()).sum::<usize>(), responses.kept());
    for query in &queries {
        assert!(query.query.starts_with(["w1q", "w3q"][query.writer]), "{query:?}");
        let texts: BTreeSet<String> =
            query.candidates.iter().map(|candidate| candidate.text.to_lowercase()).collect();
        assert_eq!(texts.len(), query.candidates.len(), "{query:?}");
        for candidate in &query.candidates {
            assert_eq!(candidate.scored.perplexity, fakes::perplexity(&candidate.text));
        }
    }
    let [free, held] = split(&queries);
    assert_eq!((free.len(), held.len()), (14, 4));
    // Every proxy is measured in its own scale: over all candidates the rewards have no mean.
    assert_eq!(sampled.scales.len(), 2);
    let candidates = queries.iter().flat_map(|query| &query.candidates);
    assert!(candidates.map(|candidate| candidate.scored.score).sum::<f64>().abs() < 1e-9);
}

#[test]
fn draws_are_spread_evenly_over_classes_and_no_two_have_the_same_seed() {
    let declared = "[schema.declared]\nclasses = ['card_arrival', 'top_up']\n[rewardds]\n";
    let labelled = plan("arms = ['untuned']\n").replace("[rewardds]\n", declared);
    let ran = run(&labelled.replace("A question and", "A question about {label} and"));
    let asks = ran.world.fake.queries.lock().unwrap();
    for class in ["card arrival", "top up"] {
        let control = format!("A question about {class} and its answer:");
        assert_eq!(asks.iter().filter(|ask| ask.text == control).count(), 20, "{class}");
        let queries = ran.queries();
        assert!(queries.iter().any(|query| query.control == control), "{class}");
    }
    assert_eq!(asks.iter().map(|ask| ask.seed).collect::<BTreeSet<_>>().len(), 40);
    let seeds = ran.world.fake.seeds.lock().unwrap();
    assert_eq!(seeds.iter().collect::<BTreeSet<_>>().len(), 80);
}

#[test]
fn reward_guided_filtering_keeps_the_best_of_the_free_queries() {
    let ran = run(&plan("arms = ['rgf']\n"));
    let queries = ran.queries();
    let choices = filter::choices(&queries, 0.5).unwrap();
    let tuned = ran.tuned(Arm::Rgf);
    let pool = ran.pool(&tuned).pool;
    let free: Vec<usize> = (0..queries.len()).filter(|number| !queries[*number].held).collect();
    assert_eq!(pool.entries().len(), free.len().div_ceil(4));
    assert_eq!(tuned.examples, pool.entries().len());
    let least = pool.threshold().unwrap();
    for number in free {
        let chosen = &queries[number].candidates[choices[number].chosen];
        match pool.entries().iter().find(|entry| entry.query == number) {
            Some(entry) => {
                assert_eq!(
                    (&entry.response, entry.score, entry.round),
                    (&chosen.text, chosen.scored.score, 1)
                );
            }
            None => assert!(chosen.scored.score <= least, "{} is better than {least}", chosen.scored.score),
        }
    }
    assert!(pool.entries().iter().all(|entry| !queries[entry.query].held));

    let lines = ran.lines(&ran.published.files["pool/round-1.jsonl"]);
    assert_eq!(lines.len(), queries.len(), "every query is told of");
    for ((line, query), choice) in lines.iter().zip(&queries).zip(&choices) {
        assert_eq!(line["query"], query.query.as_str());
        assert_eq!(line["chosen"]["text"], query.candidates[choice.chosen].text.as_str());
        assert_eq!(line["candidates"], query.candidates.len());
        assert_eq!(line["accepted"] == true, line["why"] == "among the best");
        assert_eq!(line["why"] == "held out", query.held);
    }
    let round = &ran.report().rounds[0];
    assert_eq!(
        (round.round, round.queries, round.accepted, round.pool, round.threshold),
        (1, 18, 4, 4, None)
    );
    let verdicts = count(&[("among the best", 4), ("held out", 4), ("not among the best", 10)]);
    assert_eq!(round.verdicts, verdicts);
    assert_eq!(round.scores.candidates.counts.iter().sum::<u64>(), 54);
    assert_eq!((round.variety.chosen.texts, round.variety.pool.texts), (18, 4));
}

#[test]
fn no_arm_learns_from_what_is_held_out_and_naive_filters_keep_as_much() {
    let ran = run(&plan(""));
    let queries = ran.queries();
    let [free, held] = split(&queries);
    let lessons = ran.world.fake.lessons.lock().unwrap();
    let refined: Refined = ran.gave("refine-2");
    let pool = ran.pool(&refined.tuned).pool.entries().len();
    let examples: Vec<usize> = lessons.iter().map(|lesson| lesson.examples.len()).collect();
    assert_eq!(examples, [free.len(), 4, 4, 4, 4, 4, pool], "as many as reward guided filtering keeps");
    // A fourth of the examples is passed over four times as often.
    let epochs: Vec<usize> = lessons.iter().map(|lesson| lesson.epochs).collect();
    assert_eq!(epochs, [2, 8, 8, 8, 8, 8, 3]);
    let starts: Vec<Option<f32>> = lessons.iter().map(|lesson| lesson.start).collect();
    assert_eq!(
        starts,
        [None, None, None, None, None, None, Some(4.0)],
        "refinement goes on from the filter's"
    );
    for lesson in lessons.iter() {
        assert!(names(&lesson.examples).is_subset(&free));
        assert_eq!(names(&lesson.held), held);
    }
    for lesson in &lessons[..6] {
        assert_eq!(names(&lesson.examples).len(), lesson.examples.len(), "one response to a query");
        for (query, response) in lesson.examples.iter().chain(&lesson.held) {
            let query = queries.iter().find(|other| other.query == *query).unwrap();
            assert!(query.candidates.iter().any(|candidate| candidate.text == *response));
        }
    }
    assert_eq!(names(&lessons[0].examples), free);

    // The perplexity filter: the likeliest response to each query, and of these the likeliest.
    let least = |query: &sample::Query| {
        query.candidates.iter().map(|candidate| candidate.scored.perplexity).fold(f64::INFINITY, f64::min)
    };
    let kept = names(&lessons[4].examples);
    let worst = lessons[4].examples.iter().map(|(_, text)| fakes::perplexity(text)).fold(0.0, f64::max);
    for query in queries.iter().filter(|query| !query.held) {
        let (query, least) = (query.query.as_str(), least(query));
        match lessons[4].examples.iter().find(|(kept, _)| kept == query) {
            Some((_, text)) => assert_eq!(fakes::perplexity(text), least),
            None => assert!(least >= worst && !kept.contains(query)),
        }
    }
}
