"""SmolLM2-135M-Instruct out of its GGUF by transformers: token ids, logits, greedy text, chat text, log-probabilities, LoRA gradients.

    python tests/reference/smollm2.py --data DATA_PACK [--llama-cpp]

--llama-cpp also compares the token ids with llama.cpp's own tokeniser (package xllamacpp).
"""

import argparse
import json
import math
import pathlib
import urllib.request

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from tokenizers import pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer

import place
import varied_texts

torch.set_num_threads(2)
CHATS = [
    [{"role": "user", "content": "What is gravity?"}],
    [{"role": "system", "content": "You are a careful nurse."}, {"role": "user", "content": "Is a temperature of 39.5 high?"}],
    [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello! How can I help?"}, {"role": "user", "content": "Name three\nprimes. "}],
    [{"role": "system", "content": ""}, {"role": "user", "content": "  spaces  and <|im_end|> inside é"}],
]
PAIRS = [  # (prompt, response, through the chat template or as it stands)
    ("What is the capital of France?", "The capital of France is Paris.", True),
    ("What is the capital of France?", "Bananas are yellow and 7 is odd.", True),
    ("I lost my card. What should I do?", "Call your bank at once and ask for the card to be blocked.", True),
    ("Write a function that adds two numbers.", "def add(a, b):\n    return a + b", True),
    ("The sky is", " blue.", False),
    ("def square(x):\n    return", " x * x\n", False),
    ("1 2 3 4 5", " 6 7 8 9 10", False),
    ("Ein Satz auf Deutsch: ", "Der Hund schläft im Garten.", False),
]


def tokenizer(path):
    tok = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    # transformers knows the marks, the vocabulary and the merges of the file but not what its `tokenizer.ggml.pre = smollm` means:
    # digits one by one first, as in the tokenizer.json that the model was published with. llama.cpp knows it (--llama-cpp compares).
    tok.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)]
    )
    return tok


def compare_with_llama_cpp(path, texts, ids):
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(path)
    params.n_ctx = 512
    params.cpuparams.n_threads = 2
    server = xllamacpp.Server(params)
    different = []
    for text, ours in zip(texts, ids):
        body = json.dumps({"content": text, "add_special": False, "parse_special": True}).encode()
        request = urllib.request.Request(server.listening_address + "/tokenize", body, {"Content-Type": "application/json"})
        theirs = json.load(urllib.request.urlopen(request))["tokens"]
        if theirs != ours:
            different.append((text, ours, theirs))
    print(f"llama.cpp: {len(texts) - len(different)} of {len(texts)} texts with equal ids")
    for text, ours, theirs in different[:20]:
        print("  ", repr(text), ours, theirs)


def wave(rows, cols, layer, seed):
    """A LoRA leaf that any language can write: 0.05 sin(0.7 row + 0.3 col + layer + seed)."""
    r, c = torch.arange(rows, dtype=torch.float64)[:, None], torch.arange(cols, dtype=torch.float64)[None]
    return (0.05 * torch.sin(0.7 * r + 0.3 * c + layer + seed)).float()


def nll(model, prompt, response):
    logits = model(torch.tensor([prompt + response])).logits[0]
    return F.cross_entropy(logits[len(prompt) - 1 : -1], torch.tensor(response), reduction="sum")


def lora(model, pairs):
    from peft import LoraConfig, get_peft_model

    tuned = get_peft_model(model, LoraConfig(r=8, lora_alpha=16, lora_dropout=0.0, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")).eval()
    leaves = {n.replace(".default", ""): p for n, p in tuned.named_parameters() if p.requires_grad}
    with torch.no_grad():
        for name, p in leaves.items():
            layer = int(name.split(".layers.")[1].split(".")[0])
            p.copy_(wave(*p.shape, layer, {"q_proj.lora_A": 0, "q_proj.lora_B": 1, "v_proj.lora_A": 2, "v_proj.lora_B": 3}[name.split("self_attn.")[1].removesuffix(".weight")]))
    out = {"rank": 8, "alpha": 16, "leaf": "0.05 sin(0.7 row + 0.3 col + layer + s); s = 0 q A, 1 q B, 2 v A, 3 v B", "records": []}
    for i in (0, 4):
        tuned.zero_grad()
        loss = nll(tuned, pairs[i]["prompt_ids"], pairs[i]["response_ids"])
        loss.backward()
        norms = {n: p.grad.norm().item() for n, p in leaves.items()}
        out["records"].append({"pair": i, "nll": loss.item(), "gradient_norm": math.sqrt(sum(v * v for v in norms.values())), "leaf_gradient_norms": norms})
    return out


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=pathlib.Path, required=True, help="folder of the data pack")
    parser.add_argument("--llama-cpp", action="store_true")
    args = parser.parse_args()
    path, target = place.smollm2_gguf(), place.folder("smollm2")
    tok = tokenizer(path)
    encode = lambda text: tok.backend_tokenizer.encode(text, add_special_tokens=False).ids
    texts = varied_texts.thousand(args.data)
    ids = [encode(t) for t in texts]
    place.write_json(target / "token_ids.json", [[t, i] for t, i in zip(texts, ids)])
    if args.llama_cpp:
        compare_with_llama_cpp(path, texts, ids)

    expected, tensors = {}, {}
    expected["chats"] = []
    for chat in CHATS:
        for open_turn in (False, True):
            text = tok.apply_chat_template(chat, tokenize=False, add_generation_prompt=open_turn)
            expected["chats"].append({"messages": chat, "add_generation_prompt": open_turn, "text": text, "ids": encode(text)})
    chat = lambda message: tok.apply_chat_template([{"role": "user", "content": message}], tokenize=False, add_generation_prompt=True)

    model = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32, attn_implementation="eager").eval()
    prompts = [
        "The capital of France is Paris, and the capital of Italy is",
        chat("What is gravity?"),
        "def fibonacci(n):\n    if n < 2:\n        return n\n    return",
        "Größe und Maß: 12.5 kg ≈ 27,6 lb 😀 数字は",
    ]
    expected["logits"] = []
    with torch.no_grad():
        for i, text in enumerate(prompts):
            tokens = encode(text)
            logits = model(torch.tensor([tokens])).logits[0]
            stride = 1 if i == 0 else 16
            top = logits.topk(20, dim=-1)
            tensors[f"last_logits.{i}"] = logits[-1, ::stride].clone()
            tensors[f"top_values.{i}"] = top.values.clone()
            expected["logits"].append({"prompt": text, "ids": tokens, "stride": stride, "top_ids": top.indices.tolist()})
        expected["greedy"] = []
        for text in (prompts[0], prompts[1]):
            tokens = encode(text)
            out = model.generate(torch.tensor([tokens]), attention_mask=torch.ones(1, len(tokens), dtype=torch.long), max_new_tokens=32, min_new_tokens=32, do_sample=False,
                                 repetition_penalty=1.0, eos_token_id=None, pad_token_id=2)[0, len(tokens):].tolist()
            expected["greedy"].append({"prompt": text, "ids": tokens, "continuation": out, "text": tok.decode(out, skip_special_tokens=False)})
        expected["pairs"] = []
        for prompt, response, templated in PAIRS:
            p = encode(chat(prompt) if templated else prompt)
            r = encode(response) + ([2] if templated else [])  # the end mark is learnt in a chat
            expected["pairs"].append({"prompt": prompt, "response": response, "chat": templated, "prompt_ids": p, "response_ids": r, "log_probability": -nll(model, p, r).item()})
    expected["lora"] = lora(model, expected["pairs"])
    place.write_json(target / "expected.json", expected)
    save_file(tensors, target / "expected.safetensors")
    for g in expected["greedy"]:
        print(repr(g["text"]))
    for p in expected["pairs"]:
        print(round(p["log_probability"], 3), p["response"][:30])


if __name__ == "__main__":
    main()
