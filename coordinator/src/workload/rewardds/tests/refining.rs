//! Rounds of refinement.

use super::*;

#[test]
fn a_round_accepts_what_reaches_the_old_pool_and_the_pool_grows_by_it() {
    let ran = run(&plan("arms = ['rgf-sor']\n"));
    let names = ["start", "generator-1", "reward-1", "sample", "tune-rgf", "refine-2", "evaluate", "deliver"];
    assert_eq!(ran.names(), names, "refinement begins with the filter, asked for or not");
    let filtered = ran.tuned(Arm::Rgf);
    let refined: Refined = ran.gave("refine-2");
    let (old, new) = (ran.pool(&filtered), ran.pool(&refined.tuned));
    let least = old.pool.threshold().unwrap();
    let lines = ran.lines(&ran.published.files["pool/round-2.jsonl"]);
    // Of 14 free queries two get no revision that ended; those of every other one are longer than any candidate.
    let accepted: Vec<&Value> = lines.iter().filter(|line| line["accepted"] == true).collect();
    assert_eq!((lines.len(), accepted.len()), (12, 6));
    for line in &lines {
        let score = line["chosen"]["score"].as_f64().unwrap();
        assert_eq!(line["accepted"] == true, score >= least, "{line}");
        let why = if score >= least { "accepted" } else { "below the pool's least reward" };
        assert_eq!(line["why"], why);
        assert_eq!(line["candidates"], 2, "what was cut is no candidate");
        assert!(line["chosen"]["text"].as_str().unwrap().starts_with("revised"));
        assert!(line["feedback"].as_str().unwrap().starts_with("say more"));
    }

    let queries = ran.queries();
    let (before, after) = (old.pool.entries(), new.pool.entries());
    assert_eq!(after.len(), before.len() + accepted.len());
    assert_eq!(after[..before.len()], *before, "what was in the pool stays");
    for (entry, line) in after[before.len()..].iter().zip(&accepted) {
        assert!(entry.score >= least && entry.round == 2 && !queries[entry.query].held);
        assert_eq!(line["query"], queries[entry.query].query.as_str());
        assert_eq!(line["chosen"]["text"], entry.response.as_str());
    }
    assert_eq!(refined.tuned.examples, after.len());
    let lessons = ran.world.fake.lessons.lock().unwrap();
    let examples =
        |entry: &sheaf_text::reward::Entry| (queries[entry.query].query.clone(), entry.response.clone());
    assert_eq!(lessons[1].examples, after.iter().map(examples).collect::<Vec<_>>());
    // What is held out measures every round alike.
    assert_eq!(lessons[1].held, lessons[0].held);

    let asked = ran.world.fake.asked.lock().unwrap();
    assert_eq!(asked.len(), 14 + 14 * 3, "feedback, then revisions");
    assert!(asked.iter().all(|(adapter, _)| *adapter == Some(4.0)), "of the target as the filter tuned it");
    for query in &queries {
        let about = asked.iter().filter(|(_, question)| question.contains(&query.query)).count();
        assert_eq!(about, if query.held { 0 } else { 4 }, "{query:?}");
    }

    let [_, round] = ran.report().rounds.as_slice() else { panic!("not two rounds") };
    assert_eq!((round.round, round.queries, round.accepted, round.pool), (2, 18, 6, 10));
    assert_eq!(round.threshold, Some(least));
    assert_eq!(round.scores.candidates.counts.iter().sum::<u64>(), 24);
    let samples = &ran.report().samples;
    assert_eq!(samples.len(), 4);
    for sample in samples {
        let at = queries.iter().position(|query| query.query == sample.query).unwrap();
        assert_eq!([&sample.chosen, &sample.rejected], [0, 1].map(|end| &old.choices[at][end].text));
        assert_eq!(sample.revision, new.choices[at][0].text);
        assert_eq!(sample.scores[2], new.choices[at][0].scored.score);
    }

    // Only the arm that was asked for is measured and published.
    let spec: EvaluateSpec = ran.spec("evaluate");
    assert_eq!((spec.arms.as_slice(), ran.phase("evaluate").inputs.len()), ([Arm::RgfSor].as_slice(), 1));
    assert!(!ran.published.files.keys().any(|name| name.starts_with("target/rgf/")));
    assert_eq!(ran.published.model, refined.tuned.adapter.unwrap());
}

#[test]
fn another_round_goes_on_from_the_last_and_takes_nothing_twice() {
    let text = plan("arms = ['rgf-sor']\n").replace("refine = { rounds = 2", "refine = { rounds = 3");
    let ran = run(&text);
    assert_eq!(ran.names()[4..], ["tune-rgf", "refine-2", "refine-3", "evaluate", "deliver"]);
    let lessons = ran.world.fake.lessons.lock().unwrap();
    let starts: Vec<Option<f32>> = lessons.iter().map(|lesson| lesson.start).collect();
    assert_eq!(starts, [None, Some(4.0), Some(10.0)]);
    let asked = ran.world.fake.asked.lock().unwrap();
    let (second, third) = asked.split_at(asked.len() / 2);
    assert!(second.iter().all(|(adapter, _)| *adapter == Some(4.0)));
    assert!(third.iter().all(|(adapter, _)| *adapter == Some(10.0)));
    // The newest response is what is improved.
    assert!(!second[..14].iter().any(|(_, question)| question.contains("revised")));
    assert_eq!(third[..14].iter().filter(|(_, question)| question.contains("revised")).count(), 12);

    // The target writes the same revisions again.
    let (two, three): (Refined, Refined) = (ran.gave("refine-2"), ran.gave("refine-3"));
    assert_eq!(ran.pool(&three.tuned).pool, ran.pool(&two.tuned).pool);
    let [_, _, round] = ran.report().rounds.as_slice() else { panic!("not three rounds") };
    assert_eq!((round.round, round.accepted, round.pool), (3, 0, 10));
    assert_eq!(round.verdicts["in the pool already"], 6);
    assert_eq!(round.threshold, ran.report().rounds[1].threshold, "a pool's least stays");
    assert!(ran.published.files.contains_key("pool/round-3.jsonl"));
    let spec: EvaluateSpec = ran.spec("evaluate");
    assert_eq!((spec.arms.as_slice(), ran.phase("evaluate").inputs.len()), ([Arm::RgfSor].as_slice(), 1));
    assert_eq!(ran.phase("evaluate").inputs[0], three.tuned.adapter.unwrap());
}
