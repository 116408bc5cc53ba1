"""MiniLM-L6 by transformers with sentence-transformers' steps (mean of the real tokens, L2 norm), and a tiny BERT without weights of anyone.

    python tests/reference/minilm.py --data DATA_PACK
"""

import argparse
import json
import pathlib
import shutil

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from tokenizers import Tokenizer
from transformers import BertConfig, BertModel

import place
import varied_texts

torch.set_num_threads(2)


def pooled(model, tokens):
    """One text at a time: nothing here depends on padding."""
    with torch.no_grad():
        hidden = model(input_ids=torch.tensor([tokens])).last_hidden_state[0]
    return hidden, F.normalize(hidden.mean(0), dim=0)


def tiny():
    """WordPiece over letters and a few words, hidden 32, 2 layers."""
    target = place.folder("tiny_bert")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"] + [chr(c) for c in range(33, 127) if not chr(c).isupper()]
    words += ["##" + chr(c) for c in range(97, 123)] + ["the", "card", "bank", "##ed", "##ing", "##s", "is", "my", "lost"]
    vocab = {w: i for i, w in enumerate(words)}
    whole = json.loads((place.minilm_folder() / "tokenizer.json").read_text())
    ids = {"[CLS]": 2, "[SEP]": 3}
    for name, id in ids.items():
        whole["post_processor"]["special_tokens"][name]["ids"] = [id]
    for token in whole["added_tokens"]:
        token["id"] = vocab[token["content"]]
    whole["model"]["vocab"] = vocab
    whole["truncation"]["max_length"], whole["padding"]["strategy"] = 128, {"Fixed": 128}  # as in the real file: a reader must turn both off
    (target / "tokenizer.json").write_text(json.dumps(whole, separators=(",", ":")) + "\n")
    config = BertConfig(vocab_size=len(words), hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48, max_position_embeddings=64, layer_norm_eps=1e-12,
                        hidden_act="gelu", attn_implementation="eager")
    model = BertModel(config, add_pooling_layer=False).eval()
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, p in sorted(model.named_parameters()):
            noise = torch.randn(p.shape, generator=generator)
            p.copy_(1 + 0.2 * noise if name.endswith("LayerNorm.weight") else 0.25 * noise)
    model.save_pretrained(target)
    tok = Tokenizer.from_file(str(target / "tokenizer.json"))
    tok.no_padding()
    tok.enable_truncation(16)
    texts = ["The bank lost my card!", "", "ÉTÉ is zoning", "the cards, the banks, the lostings and a tail that is cut off", "\U0001f600"]
    tokens = [tok.encode(t).ids for t in texts]
    outs = [pooled(model, t) for t in tokens]
    save_file({"embeddings": torch.stack([o[1] for o in outs]), "hidden.0": outs[0][0]}, target / "expected.safetensors")
    place.write_json(target / "expected.json", {"max_tokens": 16, "texts": texts, "ids": tokens})


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=pathlib.Path, required=True, help="folder of the data pack")
    data = parser.parse_args().data
    tiny()
    target = place.folder("minilm")
    shutil.rmtree(target)
    target = place.folder("minilm")
    texts = varied_texts.lines(data / "finance_banking77.jsonl.gz", 50, 120, "text") + varied_texts.lines(data / "medical_medquad.jsonl.gz", 20, 900, "answer")
    texts += varied_texts.LANGUAGES[:22] + ["", " ", "😀 ok 👍🏽", "12.5% of $1,000.00", "[SEP] [MASK] in the text", "a" * 130, "CamelCase_and-hyphen/ß\u0000\ufffd", "don't won't I'd've"]
    assert len(texts) == 100
    folder = place.minilm_folder()
    tok = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tok.no_padding()
    tok.enable_truncation(256)  # max_seq_length of sentence_bert_config.json; the file itself says 128
    model = BertModel.from_pretrained(folder, attn_implementation="eager", add_pooling_layer=False).eval()
    tokens = [tok.encode(t).ids for t in texts]
    embeddings = torch.stack([pooled(model, t)[1] for t in tokens])
    save_file({"embeddings": embeddings.half()}, target / "expected.safetensors")
    place.write_json(target / "expected.json", {"max_tokens": 256, "texts": texts, "ids": tokens})
    print("lengths", min(map(len, tokens)), max(map(len, tokens)))
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError:
        return
    theirs = SentenceTransformer(str(folder), device="cpu").encode(texts, convert_to_tensor=True, batch_size=32)
    print("sentence-transformers itself: least cosine", F.cosine_similarity(theirs, embeddings).min().item(), "max |d|", (theirs - embeddings).abs().max().item())


if __name__ == "__main__":
    main()
