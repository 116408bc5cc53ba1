"""One LoRA step of SmolLM2 with PyTorch and peft: rank 8 on q and v, full cross-entropy over batch x length tokens, backward, AdamW.

    python shared/models/benches/peers/lora_step.py [--batch 4] [--length 128] [--threads 2] [--times 3]
"""

import measure

args = measure.arguments(batch=4, length=128)

import torch  # after the thread counts are set
from peft import LoraConfig, get_peft_model

import smollm2_shape

model = get_peft_model(smollm2_shape.model(args.threads), LoraConfig(r=8, lora_alpha=16, lora_dropout=0.0, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"))
optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4)
ids = torch.randint(3, 49152, (args.batch, args.length), generator=torch.Generator().manual_seed(1))


def step():
    optimiser.zero_grad()
    model(input_ids=ids, labels=ids).loss.backward()
    optimiser.step()


measure.report(f"lora-step-{args.batch}x{args.length}", step, args)
