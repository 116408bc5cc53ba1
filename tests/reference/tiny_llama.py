"""A Llama of 80 KB with random weights, and everything the default tests compare with. Needs no real weights.

    python tests/reference/tiny_llama.py
"""

import json
import math
import shutil

import gguf
import numpy as np
import torch
import torch.nn.functional as F
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification
from transformers import get_cosine_schedule_with_warmup
from transformers import RepetitionPenaltyLogitsProcessor, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

import place

torch.set_num_threads(2)
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
TEMPLATE = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
RECORDS = [  # (prompt, response)
    ("Q: What is a fever?\nA:", " A raised body temperature."),
    ("Add 17 and 25.", "42"),
    ("Say hello in French, please, and keep it short.", " Bonjour!"),
]
REJECTED = [" I do not know.", "1725", " Good morning to you."]


def tokenizer():
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)]
    )
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320, special_tokens=SPECIAL, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), show_progress=False
    )
    text = [p + r for p, r in RECORDS] + ["the patient and the body temperature are in the answer to the question"] * 3
    made.train_from_iterator(text, trainer)
    return made


def randomise(model, seed, scale=0.3):
    """Larger weights than an initialiser would give, so that attention is not flat and errors show."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in sorted(model.named_parameters()):
            noise = torch.randn(p.shape, generator=generator)
            p.copy_(1 + 0.2 * noise if name.endswith("norm.weight") else scale * noise)


def ids_of(tok, record):
    prompt, response = (tok.encode(t).ids for t in record)
    return prompt, response + [2]  # the end mark is part of what is learnt


def nll(model, prompt, response):
    """Sum of -log p over the response's tokens; the prompt's are masked."""
    logits = model(torch.tensor([prompt + response])).logits[0]
    rows = logits[len(prompt) - 1 : -1]
    return F.cross_entropy(rows, torch.tensor(response), reduction="sum")


def leaves(model):
    return {n.replace(".default", ""): p for n, p in sorted(model.named_parameters()) if p.requires_grad}


def write_gguf(path, model, config, tok):
    """The same weights quantised as SmolLM2's file is, with Q and K rows permuted for interleaved rotary."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("tiny")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_add_space_prefix(False)
    writer.add_add_bos_token(False)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    vocab = json.loads(tok.to_str())["model"]
    by_id = sorted(tok.get_vocab().items(), key=lambda kv: kv[1])
    writer.add_token_list([t for t, _ in by_id])
    writer.add_token_types([3 if t in SPECIAL else 1 for t, _ in by_id])
    writer.add_token_merges([" ".join(m) for m in vocab["merges"]])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_pad_token_id(2)
    writer.add_chat_template(TEMPLATE)
    names = {"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
             "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
             "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm"}
    kinds = gguf.GGMLQuantizationType
    state = model.state_dict()
    dequantised = {}
    for name, tensor in state.items():
        if name == "lm_head.weight":
            continue
        array = tensor.numpy().astype(np.float32)
        if name == "model.embed_tokens.weight":
            ours, kind = "token_embd.weight", kinds.Q8_0
        elif name == "model.norm.weight":
            ours, kind = "output_norm.weight", kinds.F32
        else:
            _, _, block, rest = name.split(".", 3)
            rest = rest.removesuffix(".weight")
            ours = f"blk.{block}.{names[rest]}.weight"
            kind = kinds.F32 if array.ndim == 1 else kinds.Q4_1
            if (block, rest) == ("1", "self_attn.o_proj"):
                kind = kinds.F16
        heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}.get(ours.split(".")[-2])
        if heads:
            shape = array.shape
            array = array.reshape(heads, 2, shape[0] // heads // 2, shape[1]).swapaxes(1, 2).reshape(shape)
        packed = gguf.quants.quantize(np.ascontiguousarray(array), kind)
        writer.add_tensor(ours, packed, raw_dtype=kind)
        back = gguf.quants.dequantize(packed, kind).astype(np.float32).reshape(array.shape)
        if heads:
            back = back.reshape(heads, back.shape[0] // heads // 2, 2, back.shape[1]).swapaxes(1, 2).reshape(back.shape)
        dequantised[name] = torch.from_numpy(np.ascontiguousarray(back))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return dequantised


def sampling():
    """What the logits become after each filter of the reference, for a row of 12 numbers."""
    row = torch.tensor([[2.0, 1.5, -0.5, 0.0, 3.0, 2.9, -2.0, 0.7, 1.4, -1.0, 0.2, 1.0]])
    seen = torch.tensor([[4, 4, 2, 8]])
    steps = {
        "repetition_penalty_1.3": RepetitionPenaltyLogitsProcessor(1.3),
        "temperature_0.7": TemperatureLogitsWarper(0.7),
        "top_k_5": TopKLogitsWarper(5),
        "top_p_0.8": TopPLogitsWarper(0.8),
    }
    out = {"logits": row[0].tolist(), "seen": seen[0].tolist(), "order": list(steps)}
    each = {name: F.softmax(step(seen, row.clone()), -1)[0].tolist() for name, step in steps.items()}
    chained = row
    for step in steps.values():
        chained = step(seen, chained)
    return out | {"probabilities_each_alone": each, "probabilities_chained": F.softmax(chained, -1)[0].tolist()}


def numbers(tok, model, config, target):
    expected, tensors = {}, {}
    texts = ["Q: A fever?\nA: body", "f(x)=x+12  # \u00e9\u2713"]
    sequences = [tok.encode(t).ids for t in texts]
    expected["texts"], expected["sequences"] = texts, sequences
    for i, ids in enumerate(sequences):
        out = model(torch.tensor([ids]), output_hidden_states=True)
        tensors[f"logits.{i}"] = out.logits[0]
        tensors[f"hidden.{i}"] = out.hidden_states[-1][0]  # after the last norm
    expected["greedy"] = [model.generate(torch.tensor([s]), attention_mask=torch.ones(1, len(s), dtype=torch.long), max_new_tokens=16, do_sample=False,
                                         eos_token_id=None, pad_token_id=2)[0, len(s):].tolist() for s in sequences]
    records = [ids_of(tok, r) for r in RECORDS]
    rejected = [ids_of(tok, (p, r)) for (p, _), r in zip(RECORDS, REJECTED)]
    expected["records"] = [{"prompt": RECORDS[i][0], "response": RECORDS[i][1], "prompt_ids": p, "response_ids": r} for i, (p, r) in enumerate(records)]
    expected["base_nll"] = [nll(model, *r).item() for r in records]

    # heads
    generator = torch.Generator().manual_seed(9)
    for name, classes in [("classification", 3), ("scalar", 1)]:
        head = LlamaForSequenceClassification(LlamaConfig(**{**config.to_dict(), "num_labels": classes})).eval()
        missing, unexpected = head.model.load_state_dict(model.model.state_dict(), strict=True)
        with torch.no_grad():
            head.score.weight.copy_(0.4 * torch.randn(head.score.weight.shape, generator=generator))
        tensors[f"head.{name}.score.weight"] = head.score.weight
        tensors[f"head.{name}.logits"] = torch.cat([head(torch.tensor([s])).logits for s in sequences])

    # LoRA
    lora = LoraConfig(r=2, lora_alpha=4, lora_dropout=0.0, target_modules=["q_proj", "v_proj"], bias="none", task_type="CAUSAL_LM")
    tuned = get_peft_model(model, lora).eval()
    generator = torch.Generator().manual_seed(10)
    with torch.no_grad():
        for p in leaves(tuned).values():
            p.copy_(0.2 * torch.randn(p.shape, generator=generator))
    adapter = target / "adapter"
    tuned.save_pretrained(adapter)
    (adapter / "README.md").unlink(missing_ok=True)
    settings = json.loads((adapter / "adapter_config.json").read_text())
    settings["target_modules"].sort()  # a set there: in any order
    (adapter / "adapter_config.json").write_text(json.dumps(settings, indent=2) + "\n")
    for i, ids in enumerate(sequences):
        tensors[f"adapter_logits.{i}"] = tuned(torch.tensor([ids])).logits[0]
    expected["leaves"] = list(leaves(tuned))
    expected["leaf_shapes"] = {n: list(p.shape) for n, p in leaves(tuned).items()}
    expected["adapter_nll"], expected["record_gradient_norms"] = [], []
    total = {n: torch.zeros_like(p) for n, p in leaves(tuned).items()}
    clipped = {n: torch.zeros_like(p) for n, p in leaves(tuned).items()}
    grads = []
    for i, record in enumerate(records):
        tuned.zero_grad()
        loss = nll(tuned, *record)
        loss.backward()
        g = {n: p.grad.clone() for n, p in leaves(tuned).items()}
        grads.append(g)
        expected["adapter_nll"].append(loss.item())
        expected["record_gradient_norms"].append(math.sqrt(sum((v.double() ** 2).sum().item() for v in g.values())))
        for n, v in g.items():
            tensors[f"gradient.{i}.{n}"] = v
            total[n] += v
    clip = sum(sorted(expected["record_gradient_norms"])[:2]) / 2  # one record under the bound, two over it
    for g, norm in zip(grads, expected["record_gradient_norms"]):
        for n, v in g.items():
            clipped[n] += v * min(1.0, clip / norm)
    expected["clip"] = clip
    for n in total:
        tensors[f"gradient.sum.{n}"] = total[n]
        tensors[f"gradient.clipped_sum.{n}"] = clipped[n]

    # preference losses
    beta = 0.1
    with torch.no_grad(), tuned.disable_adapter():
        base = [(-nll(tuned, *c), -nll(tuned, *r)) for c, r in zip(records, rejected)]
    tuned.zero_grad()
    policy = [(-nll(tuned, *c), -nll(tuned, *r)) for c, r in zip(records, rejected)]
    margins = torch.stack([beta * ((pc - bc) - (pr - br)) for (pc, pr), (bc, br) in zip(policy, base)])
    dpo = -F.logsigmoid(margins)
    dpo.mean().backward()
    for n, p in leaves(tuned).items():
        tensors[f"gradient.dpo.{n}"] = p.grad.clone()
    expected["dpo"] = {
        "beta": beta, "loss_mean": dpo.mean().item(), "losses": dpo.tolist(),
        "rejected": [{"response": REJECTED[i], "response_ids": r} for i, (_, r) in enumerate(rejected)],
        "policy_logprob": [[a.item(), b.item()] for a, b in policy], "reference_logprob": [[a.item(), b.item()] for a, b in base],
    }
    chosen, refused = torch.tensor([1.5, -0.3, 40.0, 0.0], requires_grad=True), torch.tensor([0.2, 0.9, -60.0, 0.0], requires_grad=True)
    bt = -F.logsigmoid(chosen - refused)
    bt.mean().backward()
    expected["bradley_terry"] = {"chosen": chosen.tolist(), "rejected": refused.tolist(), "losses": bt.tolist(), "loss_mean": bt.mean().item(),
                                 "gradient_chosen": chosen.grad.tolist()}

    # AdamW: whole batch of three, mean over response tokens, constant rate
    def batch_loss():
        return sum(nll(tuned, *r) for r in records) / sum(len(r) for _, r in records)

    start = {n: p.detach().clone() for n, p in leaves(tuned).items()}
    for name, bound in [("adamw", None), ("adamw_clip", 0.5)]:
        with torch.no_grad():
            for n, p in leaves(tuned).items():
                p.copy_(start[n])
        settings = {"learning_rate": 0.01, "weight_decay": 0.05, "betas": [0.9, 0.999], "eps": 1e-8, "clip": bound}
        optimiser = torch.optim.AdamW(leaves(tuned).values(), lr=0.01, weight_decay=0.05, betas=(0.9, 0.999), eps=1e-8)
        losses, norms = [], []
        for _ in range(5):
            optimiser.zero_grad()
            loss = batch_loss()
            losses.append(loss.item())
            loss.backward()
            norms.append(torch.nn.utils.clip_grad_norm_(leaves(tuned).values(), bound or 1e9).item())
            optimiser.step()
        losses.append(batch_loss().item())
        expected[name] = settings | {"losses": losses, "gradient_norms": norms}
        for n, p in leaves(tuned).items():
            tensors[f"{name}.final.{n}"] = p.detach().clone()
    schedule = get_cosine_schedule_with_warmup(torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0), 3, 12)
    factors = []
    for _ in range(13):
        factors.append(schedule.get_last_lr()[0])
        schedule.optimizer.step()
        schedule.step()
    expected["cosine"] = {"warmup_steps": 3, "total_steps": 12, "factor_at_step": factors}
    expected["sampling"] = sampling()
    return expected, tensors


def save(target, expected, tensors):
    save_file({n: t.detach().float().contiguous() for n, t in tensors.items()}, target / "expected.safetensors")
    place.write_json(target / "expected.json", expected)


def tiny():
    target = place.folder("tiny_llama")
    shutil.rmtree(target / "adapter", ignore_errors=True)
    tok = tokenizer()
    tok.save(str(target / "tokenizer.json"), pretty=False)
    place.write_json(target / "tokenizer_config.json", {"chat_template": TEMPLATE, "bos_token": SPECIAL[1], "eos_token": SPECIAL[2], "unk_token": SPECIAL[0],
                                                        "pad_token": SPECIAL[2], "add_bos_token": False, "model_max_length": 256})
    config = LlamaConfig(vocab_size=tok.get_vocab_size(), hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=8,
                         intermediate_size=64, tie_word_embeddings=True, max_position_embeddings=256, rms_norm_eps=1e-5, bos_token_id=1, eos_token_id=2, pad_token_id=2,
                         attn_implementation="eager")
    model = LlamaForCausalLM(config).eval()
    randomise(model, 1)
    model.save_pretrained(target)
    (target / "generation_config.json").unlink(missing_ok=True)
    dequantised = write_gguf(target / "model.gguf", model, config, tok)
    quantised = LlamaForCausalLM(config).eval()
    quantised.load_state_dict(dequantised, strict=False)
    quantised.tie_weights()
    expected, tensors = numbers(tok, model, config, target)
    for i, ids in enumerate(expected["sequences"]):
        tensors[f"gguf_logits.{i}"] = quantised(torch.tensor([ids])).logits[0]
    for name in ["model.embed_tokens.weight", "model.layers.0.self_attn.q_proj.weight", "model.layers.1.self_attn.k_proj.weight", "model.layers.1.self_attn.o_proj.weight"]:
        tensors[f"gguf.{name}"] = dequantised[name]
    other = LlamaForCausalLM.from_pretrained(target, gguf_file="model.gguf", dtype=torch.float32).eval()
    ids = torch.tensor([expected["sequences"][0]])
    apart = (other(ids).logits - quantised(ids).logits).abs().max().item()
    print("transformers' own GGUF reader against ours here, max |d logit|:", apart)
    assert apart < 1e-4
    save(target, expected, tensors)


def untied():
    """No tied output, as many KV heads as heads, a head width that is not hidden / heads, rotary settings in the older config form."""
    target = place.folder("tiny_untied")
    config = LlamaConfig(vocab_size=64, hidden_size=24, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2, head_dim=16, intermediate_size=40,
                         tie_word_embeddings=False, max_position_embeddings=64, rms_norm_eps=1e-6, rope_parameters={"rope_type": "default", "rope_theta": 5000.0},
                         bos_token_id=1, eos_token_id=2, attn_implementation="eager")
    model = LlamaForCausalLM(config).eval()
    randomise(model, 2)
    model.save_pretrained(target)
    (target / "generation_config.json").unlink(missing_ok=True)
    written = json.loads((target / "config.json").read_text())
    written["rope_theta"] = written.pop("rope_parameters")["rope_theta"]
    written["rope_scaling"] = None
    written["torch_dtype"] = written.pop("dtype", "float32")
    written.pop("transformers_version", None)
    (target / "config.json").write_text(json.dumps(written, indent=2) + "\n")
    again = LlamaForCausalLM.from_pretrained(target).eval()
    ids = [5, 9, 63, 0, 17, 17, 30, 41, 2, 8, 11]
    logits = model(torch.tensor([ids])).logits[0]
    apart = (again(torch.tensor([ids])).logits[0] - logits).abs().max().item()
    print("read back, max |d logit|:", apart)
    assert apart < 1e-4
    save(target, {"sequence": ids}, {"logits": logits})


if __name__ == "__main__":
    tiny()
    untied()
