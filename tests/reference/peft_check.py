"""Load an adapter folder that Sheaf wrote with the peft package and compare logits.

    python tests/reference/peft_check.py ADAPTER [--model FOLDER_OR_GGUF] [--ours LOGITS.json] [--tolerance 1e-3]

--model is SmolLM2's GGUF of the installed package unless given. LOGITS.json: {"prompts": [{"ids": [..], "last_logits": [..]}]}, the logits
of the last position with the adapter on. Without --ours the logits are printed in that form, for Sheaf's side to compare with.
Exit status 1: a logit is further away than the tolerance.
"""

import argparse
import json
import pathlib
import sys

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

import place


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("adapter", type=pathlib.Path)
    parser.add_argument("--model", type=pathlib.Path)
    parser.add_argument("--ours", type=pathlib.Path)
    parser.add_argument("--tolerance", type=float, default=1e-3)
    args = parser.parse_args()
    torch.set_num_threads(2)
    path = args.model or place.smollm2_gguf()
    where = {"gguf_file": path.name} if path.suffix == ".gguf" else {}
    base = AutoModelForCausalLM.from_pretrained(path.parent if where else path, dtype=torch.float32, attn_implementation="eager", **where).eval()
    # peft only warns where a tensor is missing or has no place, and would then compare a fresh adapter (B = 0: the base): refuse here.
    tuned = PeftModel.from_pretrained(base, args.adapter)
    tuned.eval()
    from safetensors import safe_open

    with safe_open(args.adapter / "adapter_model.safetensors", "pt") as f:
        theirs = set(f.keys())
    wanted = {n.replace(".default", "") for n, _ in tuned.named_parameters() if ".lora_" in n}
    if theirs != wanted:
        raise SystemExit(f"tensor names differ: missing {sorted(wanted - theirs)[:4]}, without a place {sorted(theirs - wanted)[:4]}")
    print(f"{len(wanted)} tensors, rank {tuned.peft_config['default'].r}, alpha {tuned.peft_config['default'].lora_alpha}", file=sys.stderr)

    prompts = json.loads(args.ours.read_text())["prompts"] if args.ours else [{"ids": [1, 9, 28, 17, 40]}, {"ids": [5, 6, 7]}]
    worst, out = 0.0, []
    with torch.no_grad():
        for prompt in prompts:
            ids = torch.tensor([prompt["ids"]])
            logits = tuned(ids).logits[0, -1]
            with tuned.disable_adapter():
                moved = (logits - base(ids).logits[0, -1]).abs().max().item()
            line = {"tokens": len(prompt["ids"]), "adapter_moves_logits_by": moved}
            if args.ours:
                apart = (logits - torch.tensor(prompt["last_logits"])).abs().max().item()
                worst = max(worst, apart if apart == apart else float("inf"))
                line["max_abs_difference"] = apart
            else:
                out.append({"ids": prompt["ids"], "last_logits": logits.tolist()})
            print(json.dumps(line), file=sys.stderr)
    if out:
        print(json.dumps({"prompts": out}))
    elif worst > args.tolerance:
        raise SystemExit(f"max |d logit| {worst} is over {args.tolerance}")


if __name__ == "__main__":
    main()
