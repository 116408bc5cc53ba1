//! SmolLM2-135M-Instruct itself against transformers. Runs where `SHEAF_CACHE` names a folder with the model (93 MB;
//! `sheaf-agent model pull smollm2-135m` fetches it); says so and passes where it does not.

use sheaf_models::{
    Adapter, Compute, LanguageModel, LoraConfig,
    slm::{chat::Message, decode::Decoder, generate::Sampling},
    train::{Encoded, per_record::clipped_sum, supervised::response_log_p},
};

use crate::fixture::{apart, asset, close, ids, json, tensors};

fn model() -> Option<LanguageModel> {
    asset("smollm2-135m", "gguf").map(|file| LanguageModel::load(&file, &Compute::cpu()).unwrap())
}

#[test]
fn a_thousand_texts_have_the_reference_s_tokens() {
    let Some(model) = model() else { return };
    let pairs = json("smollm2/token_ids.json");
    let pairs = pairs.as_array().unwrap();
    assert_eq!(pairs.len(), 1000);
    for pair in pairs {
        let text = pair[0].as_str().unwrap();
        assert_eq!(model.vocabulary().encode(text).unwrap(), ids(&pair[1]), "{text:?}");
    }
    for chat in json("smollm2/expected.json")["chats"].as_array().unwrap() {
        if chat["add_generation_prompt"] == true {
            let messages: Vec<Message> = serde_json::from_value(chat["messages"].clone()).unwrap();
            let text = model.chat().unwrap().render(&messages).unwrap();
            assert_eq!(text, chat["text"].as_str().unwrap());
        }
    }
}

#[test]
fn logits_log_probabilities_and_greedy_text_are_the_reference_s() {
    let Some(model) = model() else { return };
    let (expected, tensors) = (json("smollm2/expected.json"), tensors("smollm2/expected.safetensors"));
    let mut apart: f32 = 0.0;
    for (i, prompt) in expected["logits"].as_array().unwrap().iter().enumerate() {
        let ids = ids(&prompt["ids"]);
        let mut decoder = Decoder::new(&model, None, ids.len()).unwrap();
        let last = decoder.begin(&ids).unwrap();
        let stride = prompt["stride"].as_u64().unwrap() as usize;
        for (ours, wanted) in last.iter().step_by(stride).zip(&tensors.0[&format!("last_logits.{i}")].data) {
            apart = apart.max((ours - wanted).abs());
        }
    }
    println!("largest difference of a logit: {apart}");
    assert!(apart < 1e-3, "{apart}");
    for greedy in expected["greedy"].as_array().unwrap() {
        let sampling = Sampling { temperature: 0.0, max_tokens: 32, ..Sampling::default() };
        let prompt = ids(greedy.get("ids").or_else(|| greedy.get("prompt_ids")).unwrap());
        let ours = model.generate_batch(None, &[prompt], 1, &sampling).unwrap();
        let wanted = ids(greedy.get("continuation").or_else(|| greedy.get("tokens")).unwrap());
        assert_eq!(ours[0].tokens, wanted[..ours[0].tokens.len()]);
    }
    let (records, wanted) = pairs(&expected);
    for (ours, wanted) in response_log_p(&model, None, &records).unwrap().iter().zip(wanted) {
        assert!(close(ours.sum, wanted, 1e-4), "{} {wanted}", ours.sum);
    }
}

fn pairs(expected: &serde_json::Value) -> (Vec<Encoded>, Vec<f64>) {
    let pairs = expected["pairs"].as_array().unwrap();
    let records = pairs.iter().map(|pair| {
        let mut tokens = ids(&pair["prompt_ids"]);
        let first_target = tokens.len();
        tokens.extend(ids(&pair["response_ids"]));
        Encoded { tokens, first_target }
    });
    (records.collect(), pairs.iter().map(|pair| pair["log_probability"].as_f64().unwrap()).collect())
}

/// The leaves that the script writes by a formula.
fn formula(model: &LanguageModel, config: &LoraConfig) -> Adapter {
    let mut adapter = Adapter::new(model, config, 0).unwrap();
    for (name, tensor) in &mut adapter.tensors {
        let layer: f64 = name.split('.').nth(4).unwrap().parse().unwrap();
        let seed =
            f64::from(u8::from(name.contains("lora_B"))) + if name.contains("v_proj") { 2.0 } else { 0.0 };
        let columns = tensor.shape[1];
        for (at, value) in tensor.data.iter_mut().enumerate() {
            let (row, column) = ((at / columns) as f64, (at % columns) as f64);
            *value = (0.05 * (0.7 * row + 0.3 * column + layer + seed).sin()) as f32;
        }
    }
    adapter
}

#[test]
fn adapter_gradients_are_the_reference_s() {
    let Some(model) = model() else { return };
    let expected = json("smollm2/expected.json");
    let adapter = formula(&model, &LoraConfig::default());
    let (records, _) = pairs(&expected);
    for record in expected["lora"]["records"].as_array().unwrap() {
        let encoded = &records[record["pair"].as_u64().unwrap() as usize];
        let ours = clipped_sum(&model, &adapter, &[encoded], 1e9).unwrap();
        let targets = encoded.targets() as f64;
        assert!(close(ours.losses[0] * targets, record["nll"].as_f64().unwrap(), 1e-4));
        let norm = record["gradient_norm"].as_f64().unwrap();
        assert!(close(ours.norms[0] * targets, norm, 1e-3), "{} {norm}", ours.norms[0] * targets);
        for (name, wanted) in record["leaf_gradient_norms"].as_object().unwrap() {
            let squares: f64 = ours.sum[name].data.iter().map(|v| f64::from(*v).powi(2)).sum();
            assert!(close(squares.sqrt() * targets, wanted.as_f64().unwrap(), 2e-3), "{name}");
        }
    }
}

#[test]
fn an_adapter_of_ours_gives_peft_s_logits() {
    let Some(folder) = std::env::var_os("SHEAF_ADAPTER").map(std::path::PathBuf::from) else {
        eprintln!(
            "skipped: SHEAF_ADAPTER does not name an adapter with peft_logits.json (tests/reference/peft_check.py)"
        );
        return;
    };
    let Some(model) = model() else { return };
    let adapter = Adapter::load(&folder).unwrap();
    let lora = adapter.to_device(model.config(), model.device()).unwrap();
    let theirs = std::fs::read(folder.join("peft_logits.json")).unwrap();
    let theirs: serde_json::Value = serde_json::from_slice(&theirs).unwrap();
    for prompt in theirs["prompts"].as_array().unwrap() {
        let tokens = ids(&prompt["ids"]);
        let begin = |lora| Decoder::new(&model, lora, tokens.len()).unwrap().begin(&tokens).unwrap();
        let wanted: Vec<f32> =
            prompt["last_logits"].as_array().unwrap().iter().map(|x| x.as_f64().unwrap() as f32).collect();
        let (off, moved) = (apart(&begin(Some(&lora)), &wanted), apart(&begin(None), &wanted));
        eprintln!("within {off:.1e} of peft; the adapter moves a logit by up to {moved:.2}");
        assert!(off < 1e-3 && moved > 10.0 * off, "{off} {moved}");
    }
}
