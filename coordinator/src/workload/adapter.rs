//! Adapters of language models as a run publishes them.

use std::collections::BTreeSet;

use sheaf_proto::fedavg::{AdapterSpec, Parameters};
use sheaf_transport::digest::sha256_hex;

/// The weights' file, as the `peft` package names it.
pub(super) const WEIGHTS_FILE: &str = "adapter_model.safetensors";
/// The options' file, as the `peft` package names it.
pub(super) const CONFIG_FILE: &str = "adapter_config.json";

/// The layers that tensors are of, by their names in `peft`.
fn layers(parameters: &Parameters) -> BTreeSet<usize> {
    let layer = |name: &String| name.split_once(".layers.")?.1.split('.').next()?.parse().ok();
    parameters.keys().filter_map(layer).collect()
}

/// [`CONFIG_FILE`] as the `peft` package reads it.
pub(super) fn config(
    model: &str,
    adapter: Option<&AdapterSpec>,
    parameters: &Parameters,
) -> serde_json::Value {
    serde_json::json!({
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": model,
        "r": adapter.map(|adapter| adapter.rank),
        "lora_alpha": adapter.map(|adapter| adapter.alpha),
        "lora_dropout": adapter.map(|adapter| adapter.dropout),
        "target_modules": adapter.map(|adapter| adapter.targets.clone()),
        "layers_to_transform": adapter.and_then(|adapter| adapter.layers).map(|_| layers(parameters)),
        "bias": "none",
        "fan_in_fan_out": false,
        "inference_mode": true,
    })
}

/// SHA-256 of the values by name, since the order of a file's tensors is its writer's.
pub(super) fn weight_sha256(parameters: &Parameters) -> String {
    let values: Vec<u8> =
        parameters.values().flat_map(|t| t.data.iter().flat_map(|value| value.to_le_bytes())).collect();
    sha256_hex(&values)
}
