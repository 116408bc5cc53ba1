use sheaf_analytic::{FeatureMap, FeatureSpec, Normalize};

use super::*;

fn asked() -> TransferSpec {
    let schema: Schema =
        serde_json::from_value(serde_json::json!({"declared": {"classes": ["a", "b"], "dim": 4}})).unwrap();
    let encoding = sheaf_data::Encoding::declared(&schema).unwrap().unwrap();
    let features = FeatureSpec {
        input_dim: 4,
        map: FeatureMap::Identity,
        normalize: Normalize::L2,
        bits: 14,
        bias: false,
    };
    TransferSpec {
        sums: SumsSpec { schema, encoding, features, privacy: None },
        lambda: 1.0,
        weight: 4,
        texts: vec![Texts::Fdkt],
        task: TaskModel::ALL.to_vec(),
        classifier: Some(ClassifierSpec {
            model: "smollm2-135m".to_owned(),
            model_sha256: "0".repeat(64),
            adapter: AdapterSpec {
                rank: 4,
                alpha: 8.0,
                dropout: 0.0,
                targets: vec!["q_proj".to_owned()],
                layers: Some(4),
            },
            max_tokens: 64,
            tuning: Tuning { epochs: 2, batch: 8, learning_rate: 1e-3, seed: 7 },
        }),
    }
}

#[test]
fn a_question_without_a_classifier_is_one_for_the_analytic_head() {
    let spec = asked();
    let mut json = serde_json::to_value(&spec).unwrap();
    assert_eq!(json["task"], serde_json::json!(["analytic", "language-model"]));
    assert_eq!(serde_json::from_value::<TransferSpec>(json.clone()).unwrap(), spec);
    let fields = json.as_object_mut().unwrap();
    fields.remove("task");
    fields.remove("classifier");
    let wanted = TransferSpec { task: vec![TaskModel::Analytic], classifier: None, ..spec };
    assert_eq!(serde_json::from_value::<TransferSpec>(json).unwrap(), wanted);
}

#[test]
fn counts_are_by_model_and_arm_and_add_up() {
    let json = r#"{"rows":10,"correct":{"analytic":{"local":6,"fdkt":8},"language-model":{"local":12}}}"#;
    let one: Transfer = serde_json::from_str(json).unwrap();
    assert_eq!(serde_json::to_string(&one).unwrap(), json);
    assert_eq!(one.accuracy(TaskModel::Analytic, Arm::Fdkt), Some(0.8));
    assert_eq!(one.accuracy(TaskModel::LanguageModel, Arm::Local), Some(1.0), "noise found too many");
    assert_eq!(one.accuracy(TaskModel::LanguageModel, Arm::Fdkt), None);
    let mut both = Transfer::default();
    assert_eq!(both.accuracy(TaskModel::Analytic, Arm::Local), None);
    both.add(&one);
    both.add(&Transfer { rows: 10, correct: BTreeMap::new() });
    assert_eq!(both.accuracy(TaskModel::Analytic, Arm::Local), Some(0.3));
}
