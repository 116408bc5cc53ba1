"""A Llama of SmolLM2-135M's shape with random weights: time does not depend on what they are, so no file is needed."""

import torch
from transformers import LlamaConfig, LlamaForCausalLM


def model(threads):
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(
        vocab_size=49152, hidden_size=576, num_hidden_layers=30, num_attention_heads=9, num_key_value_heads=3, head_dim=64, intermediate_size=1536,
        tie_word_embeddings=True, max_position_embeddings=8192, rms_norm_eps=1e-5, rope_parameters={"rope_type": "default", "rope_theta": 100000.0},
        bos_token_id=1, eos_token_id=2, pad_token_id=2,
    )).eval()
