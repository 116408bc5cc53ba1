//! Answers that cannot be.

use sheaf_proto::{fedavg::Tensor, rewardds::Share};

use super::*;
use crate::error::Class;

/// Why an answer is refused.
fn refused(ran: &Ran, name: &str, answer: &[u8]) -> String {
    let site = &ran.world.members[0];
    let error = ran.world.check(ran.phase(name), site, answer).unwrap_err();
    assert_eq!(error.class, Class::Invalid, "{name}: {error}");
    assert!(error.message.contains(&format!("phase {name}")), "{error}");
    error.message
}

#[test]
fn a_proxy_of_other_tensors_or_of_no_numbers_is_refused() {
    let ran = run(&plan("arms = ['untuned']\n"));
    for name in ["generator-1", "reward-1"] {
        let right = moved(&ran.world, ran.phase(name), 0);
        let changed = |change: &dyn Fn(&mut Parameters)| {
            let mut parameters = right.clone();
            change(&mut parameters);
            refused(&ran, name, &encoded(&parameters))
        };
        let tensor = right.keys().next().unwrap();
        let flat = |parameters: &mut Parameters| {
            let tensor = parameters.get_mut(tensor).unwrap();
            tensor.shape = vec![tensor.data.len(), 1];
        };
        assert!(changed(&flat).contains("shape"));
        let more = |parameters: &mut Parameters| {
            parameters.insert("more".to_owned(), Tensor { shape: vec![1], data: vec![1.0] });
        };
        assert!(changed(&more).contains("2 tensors"));
        assert!(changed(&Parameters::clear).contains("is missing"));
        for bad in [f32::NAN, f32::INFINITY, 1e30] {
            let diverged = |parameters: &mut Parameters| parameters.get_mut(tensor).unwrap().data[0] = bad;
            assert!(changed(&diverged).contains("diverged"));
        }
        let bytes = encoded(&right);
        refused(&ran, name, &bytes[..bytes.len() - 1]);
        refused(&ran, name, b"");
    }
    // The other proxy has other tensors.
    refused(&ran, "generator-1", &encoded(&moved(&ran.world, ran.phase("reward-1"), 0)));
}

#[test]
fn figures_that_are_no_numbers_or_were_not_asked_for_are_refused() {
    let ran = run(&plan("arms = ['untuned', 'rgf']\n"));
    let right = said(&ran.spec("evaluate"));
    assert_eq!(right.arms.keys().collect::<Vec<_>>(), [&Arm::Untuned, &Arm::Rgf]);
    let changed = |change: &dyn Fn(&mut Evaluation)| {
        let mut said = right.clone();
        change(&mut said);
        refused(&ran, "evaluate", &serde_json::to_vec(&said).unwrap())
    };
    let many = "more than so many records";
    assert!(changed(&|said| said.arms.get_mut(&Arm::Rgf).unwrap().rouge_l = said.rows + 1.0).contains(many));
    assert!(changed(&|said| said.arms.get_mut(&Arm::Rgf).unwrap().nll = 1e9).contains(many));
    assert!(changed(&|said| said.arms.retain(|arm, _| *arm != Arm::Rgf)).contains("missing"));
    let too_right = |said: &mut Evaluation| {
        said.pairs.as_mut().unwrap().by_pair = Some([Share { right: u64::MAX, of: 1 }; 3]);
    };
    assert!(changed(&too_right).contains("more pairs are right"));
    let negative = "no number of at least 0";
    assert!(changed(&|said| said.rows = -1.0).contains(negative));
    assert!(changed(&|said| said.arms.get_mut(&Arm::Rgf).unwrap().rouge_l = -0.5).contains(negative));
    assert!(changed(&|said| said.arms.get_mut(&Arm::Rgf).unwrap().passed = Some(-2.0)).contains(negative));
    assert!(changed(&|said| said.pairs.as_mut().unwrap().right = -1.0).contains(negative));
    let other = changed(&|said| said.arms.extend([(Arm::NonPrivate, Figures::default())]));
    assert!(other.contains("figures of non-private"), "{other}");
    // JSON has no such numbers; whatever stands for them is none either.
    changed(&|said| said.rows = f64::NAN);
    changed(&|said| said.arms.get_mut(&Arm::Rgf).unwrap().nll = f64::INFINITY);
    changed(&|said| said.pairs.as_mut().unwrap().rows = f64::NAN);
    for text in [
        "{\"rows\":1e999,\"arms\":{}}",
        "{\"rows\":1,\"arms\":{\"best\":{\"nll\":1,\"rouge_l\":1}}}",
        "[]",
        "",
    ] {
        refused(&ran, "evaluate", text.as_bytes());
    }
    // A site with too few test records says nothing, and that is an answer.
    let site = &ran.world.members[1];
    let nothing = serde_json::to_vec(&Evaluation::default()).unwrap();
    ran.world.check(ran.phase("evaluate"), site, &nothing).unwrap();
}

#[test]
fn a_phase_of_the_coordinator_alone_takes_no_answer() {
    let ran = run(&plan("arms = ['untuned']\n"));
    let error = ran.world.check(ran.phase("sample"), &ran.world.members[0], b"{}").unwrap_err();
    assert_eq!(error.class, Class::Bug, "{error}");
}

#[test]
fn what_the_coordinator_has_made_is_not_made_again() {
    let ran = run(&plan("arms = ['untuned', 'rgf', 'rgf-sor']\n"));
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    // Without models nothing could be made.
    let context = ran.world.context(None);
    for (at, output) in ran.outputs.iter().enumerate() {
        let phase = ran.phase(&output.name);
        if !phase.asks_nobody() {
            continue;
        }
        let again = |previous| {
            let outputs = &ran.outputs[..at];
            Rewardds.reduce(&context, &Answers { phase, contributions: &[], outputs, previous })
        };
        assert_eq!(
            again(Some(output)).unwrap(),
            ran.world.blobs.get(&output.output).unwrap(),
            "{}",
            output.name
        );
        assert!(again(None).is_err(), "{}", output.name);
        // A part of it that is gone, as after a withdrawal, is made anew.
        if let Some(part) = Rewardds.merged_blobs(&context, output).unwrap().first() {
            runtime.block_on(ran.world.blobs.delete(part)).unwrap();
            assert!(again(Some(output)).is_err(), "{}", output.name);
        }
    }
}
