//! What a plan's `[privacy]` makes of the questions.

use sheaf_privacy::{Event, Scale, accountant::Composition};

use super::*;

const PRIVACY: &str = "[privacy]\nepsilon = 2\ndelta = 1e-4\nunits = 300\nclip = 0.5\n";

/// Shared proxies, two rounds of the generator; the reward has three times the noise.
fn private(more: &str) -> String {
    let text = plan(&format!("proxies = 'shared'\narms = ['untuned', 'rgf']\n{PRIVACY}{more}"));
    let text = text.replace("generator = { ", "generator = { rounds = 2, ");
    text.replace("reward = { ", "reward = { noise = 3.0, clip = 1.5, ")
}

#[test]
fn each_proxy_is_paid_for_and_both_together_cost_what_the_plan_says() {
    let ran = run(&private(""));
    let names = ["start", "generator-1", "generator-2", "reward-1", "sample", "tune-rgf", "deliver"];
    assert_eq!(ran.names(), names, "what is not paid for is brought and not measured");
    assert_eq!(ran.spec::<DeliverSpec>("deliver").arm, Arm::Rgf);
    assert_eq!((ran.report().rows, ran.report().pairs), (None, None));
    let privacy = ran.world.plan.privacy.as_ref().unwrap();
    assert_eq!(privacy.events().len(), 2);

    let generator =
        ["generator-1", "generator-2"].map(|name| ran.spec::<GeneratorSpec>(name).round.privacy.unwrap());
    let spec: RewardSpec = ran.spec("reward-1");
    assert!(spec.alone, "a record's pairs follow from it alone");
    let reward = spec.round.privacy.unwrap();
    // 38 steps of 8 of 300 in each of two rounds, under one event of the whole run; four passes by 16 of the reward.
    let [first, second] = &generator;
    assert_eq!((first.event, first.event.count()), (second.event, 76));
    assert_eq!(reward.event.count(), 75);
    let steps = |spec: &sheaf_proto::privacy::PrivacySpec| {
        let training = spec.training.as_ref().unwrap();
        (training.clip, training.units, training.steps, training.rest)
    };
    assert_eq!(
        [first, second, &reward].map(steps),
        [(0.5, 300, 38, 76), (0.5, 300, 38, 38), (1.5, 300, 75, 75)]
    );
    let noise = [first.event, reward.event].map(|event| event.sigma().unwrap().get());
    assert!((noise[1] / noise[0] - 3.0).abs() < 1e-9, "{noise:?}");
    assert_eq!(first.unit, "row");

    let both: Composition = [first.event, reward.event].into_iter().collect();
    let epsilon = both.epsilon(first.delta).unwrap().get();
    assert!(epsilon <= 2.0 && epsilon > 1.99, "{epsilon}");
    let alone: Composition = [first.event].into_iter().collect();
    assert!(alone.epsilon(first.delta).unwrap().get() < epsilon, "they compose");
}

#[test]
fn measuring_is_paid_for_by_itself() {
    let ran = run(&private("evaluate = 0.5\n"));
    assert_eq!(ran.names()[ran.names().len() - 2..], ["evaluate", "deliver"]);
    let spec: EvaluateSpec = ran.spec("evaluate");
    let event = Event::Laplace { scale: Scale::new(2.0).unwrap(), count: 1 };
    let privacy = spec.privacy.unwrap();
    assert_eq!((privacy.event, privacy.training), (event, None));
    assert_eq!(ran.report().rows, Some(20.0));
    // It leaves the proxies their noise.
    let generator: GeneratorSpec = ran.spec("generator-1");
    let without = Plan::parse(&private("")).unwrap().privacy.unwrap();
    let paid = generator.round.privacy.unwrap();
    assert_eq!((paid.event, paid.training), (without.round_spec(1).event, without.round_spec(1).training));
    assert_eq!(paid.later.last(), Some(&event), "a site knows of it before it pays for anything");
    let cost = ran.world.plan.privacy.as_ref().unwrap().cost().unwrap();
    assert_eq!(cost.events.len(), 3);
    assert!(cost.account.epsilon_pld.get() > 2.0, "and is in the total");
}

#[test]
fn a_plan_may_let_records_be_answered_together() {
    let text = private("").replace("noise = 3.0, ", "alone = false, ");
    let spec: RewardSpec = run(&text).spec("reward-1");
    assert!(!spec.alone && spec.round.privacy.is_some());
}
