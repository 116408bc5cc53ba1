"""EfficientNet-Lite0 features with PyTorch, channels_last, batch norms folded by nobody: as a user would run it.

    python shared/models/benches/peers/efficientnet.py [--size 224] [--batch 32]
"""

import measure

args = measure.arguments(size=224, batch=32)

import torch
from efficientnet_lite_pytorch import EfficientNet

torch.set_num_threads(args.threads)
model = EfficientNet.from_name("efficientnet-lite0", image_size=args.size).eval().to(memory_format=torch.channels_last)
images = torch.randn(args.batch, 3, args.size, args.size, generator=torch.Generator().manual_seed(1)).to(memory_format=torch.channels_last)


@torch.no_grad()
def features():
    return model.extract_features(images).mean((2, 3))


measure.report(f"efficientnet-{args.size}", features, args, per=args.batch)
