"""SmolLM2 with PyTorch: greedy decoding with a KV cache (seconds a token), or the first pass over a prompt.

    python shared/models/benches/peers/decode.py [--what decode|prefill] [--length 128] [--tokens 32]
"""

import measure

args = measure.arguments(what="decode", length=128, tokens=32)

import torch

import smollm2_shape

model = smollm2_shape.model(args.threads)
ids = torch.randint(3, 49152, (1, args.length), generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def prefill():
    return model(input_ids=ids, use_cache=True, logits_to_keep=1)


if args.what == "prefill":
    measure.report(f"prefill-{args.length}", prefill, args)
else:
    cache = prefill().past_key_values

    @torch.no_grad()
    def decode():
        token = ids[:, -1:]
        for _ in range(args.tokens):
            token = model(input_ids=token, past_key_values=cache, use_cache=True).logits[:, -1:].argmax(-1)
        cache.crop(-args.tokens)

    measure.report("decode", decode, args, per=args.tokens)
