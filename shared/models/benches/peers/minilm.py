"""MiniLM-L6 embeddings with transformers' BERT of that shape: token ids in, mean pooling and L2 norm out; no tokeniser.

    python shared/models/benches/peers/minilm.py [--length 64] [--batch 32]
"""

import measure

args = measure.arguments(length=64, batch=32)

import torch
import torch.nn.functional as F
from transformers import BertConfig, BertModel

torch.set_num_threads(args.threads)
torch.manual_seed(0)
model = BertModel(BertConfig(vocab_size=30522, hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536), add_pooling_layer=False).eval()
ids = torch.randint(1000, 30000, (args.batch, args.length), generator=torch.Generator().manual_seed(1))
mask = torch.ones_like(ids)


@torch.no_grad()
def embed():
    hidden = model(input_ids=ids, attention_mask=mask).last_hidden_state
    return F.normalize((hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True), dim=1)


measure.report(f"minilm-{args.length}x{args.batch}", embed, args)
