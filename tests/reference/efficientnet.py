"""EfficientNet-Lite0 by the package efficientnet_lite_pytorch: features and logits of 36 images, a daisy, small parts without weights.

    python tests/reference/efficientnet.py --data DATA_PACK
"""

import argparse
import collections
import csv
import io
import pathlib

import numpy as np
import torch
from efficientnet_lite_pytorch import EfficientNet
from efficientnet_lite_pytorch.model import MBConvBlock
from efficientnet_lite_pytorch.utils import get_model_params, get_same_padding_conv2d
from PIL import Image
from safetensors.torch import save_file

import place

torch.set_num_threads(2)


def network(size):
    # The package computes the "SAME" padding of each layer when it is built: the image size must be the one that will be used.
    model = EfficientNet.from_name("efficientnet-lite0", image_size=size)
    model.load_state_dict(torch.load(place.efficientnet_weights(), map_location="cpu"), strict=True)
    return model.eval()


def run(size, images):
    """u8 [n, h, w, 3] -> nearest up to `size` (a whole multiple of its own), (x - 127) / 128, features [n, 1280], logits [n, 1000]."""
    times = size // images.shape[1]
    assert times * images.shape[1] == size
    up = images.repeat_interleave(times, 1).repeat_interleave(times, 2)
    x = (up.permute(0, 3, 1, 2).float() - 127.0) / 128.0
    model = network(size)
    with torch.no_grad():
        features = model.extract_features(x).mean((2, 3))
        return features, model._fc(features)


def cifar(data, count):
    with open(data / "images_cifar10_14k_index.csv", newline="") as f:
        rows = list(csv.DictReader(f))
    pack = (data / "images_cifar10_14k.jpegpack").read_bytes()
    for row in rows[:: len(rows) // count][:count]:
        start = int(row["offset"])
        yield np.asarray(Image.open(io.BytesIO(pack[start : start + int(row["length"])])).convert("RGB"))


def crops(photograph, count, rng):
    """Pieces of several sizes, averaged down to 32 px, so that they hold more than flat colour."""
    for _ in range(count):
        side = int(rng.integers(48, min(photograph.size)))
        left, top = (int(rng.integers(0, n - side + 1)) for n in photograph.size)
        yield np.asarray(photograph.crop((left, top, left + side, top + side)).resize((32, 32), Image.Resampling.BOX))


def parts(target):
    """Weightless: convolutions with "SAME" padding at odd and even sizes, a block, and PyTorch's two file forms with strided tensors."""
    generator = torch.Generator().manual_seed(4)
    noise = lambda *shape: torch.randn(shape, generator=generator)
    tensors = {}
    for kernel, stride, size, groups in [(3, 2, 8, 1), (3, 2, 7, 1), (5, 2, 8, 4), (5, 2, 7, 4), (5, 1, 6, 4), (3, 1, 5, 4)]:
        conv = get_same_padding_conv2d(image_size=size)(4, 4, kernel_size=kernel, stride=stride, groups=groups, bias=False)
        name = f"conv.k{kernel}.s{stride}.n{size}.g{groups}"
        with torch.no_grad():
            conv.weight.copy_(noise(*conv.weight.shape))
            x = noise(1, 4, size, size)
            tensors |= {f"{name}.weight": conv.weight, f"{name}.input": x, f"{name}.output": conv(x)}
    blocks, settings = get_model_params("efficientnet-lite0", {})
    for name, args in [("block.skip", dict(input_filters=4, output_filters=4, stride=1, kernel_size=3, expand_ratio=6)), ("block.down", dict(input_filters=4, output_filters=6, stride=2, kernel_size=5, expand_ratio=6)),
                       ("block.first", dict(input_filters=4, output_filters=4, stride=1, kernel_size=3, expand_ratio=1))]:
        block = MBConvBlock(blocks[0]._replace(num_repeat=1, **args), settings, image_size=9).eval()
        with torch.no_grad():
            for key, value in block.state_dict().items():
                if "num_batches" not in key:
                    value.copy_(noise(*value.shape).abs() + 0.5 if key.endswith("running_var") else 0.5 * noise(*value.shape))
            x = 2 * noise(2, 4, 9, 9)
            tensors |= {f"{name}.{k}": v for k, v in block.state_dict().items() if "num_batches" not in k}
            tensors |= {f"{name}.input": x, f"{name}.output": block(x)}
    save_file({n: t.detach().contiguous() for n, t in tensors.items()}, target / "parts.safetensors")

    base = noise(6, 4)
    state = {
        "plain": noise(3, 5),
        "transposed": base.t(),  # strides (1, 4), shape [4, 6]
        "channels_last": noise(2, 3, 4, 5).to(memory_format=torch.channels_last),
        "shared_tail": base[2:],  # the same storage, an offset of 8
        "every_other": noise(10)[::2],
        "scalar": noise(1)[0],
        "half": noise(4).half(),
        "double": noise(3).double(),
        "counter": torch.tensor(7, dtype=torch.int64),
        "module.bias": torch.nn.Parameter(noise(2)),
    }
    ordered = collections.OrderedDict(state)
    ordered._metadata = collections.OrderedDict({"": {"version": 1}})  # what Module.state_dict() leaves on it: pickled as a BUILD
    torch.save(ordered, target / "legacy.pth", _use_new_zipfile_serialization=False)
    torch.save(state, target / "zip.pth")
    save_file({n: t.detach().float().contiguous().clone() for n, t in state.items()}, target / "torch_expected.safetensors")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=pathlib.Path, required=True, help="folder of the data pack")
    data = parser.parse_args().data
    parts(place.folder("torch_parts"))

    target = place.folder("efficientnet_lite0")
    rng = np.random.default_rng(6)
    flower, china = (Image.open(place.photograph(n)).convert("RGB") for n in ("flower.jpg", "china.jpg"))
    small = [*cifar(data, 16), *crops(flower, 8, rng), *crops(china, 8, rng)]
    small = torch.from_numpy(np.stack(small))
    # The left square of the flower at 192 px: every reader of this fixture sees the same pixels, whatever its JPEG decoder.
    side = min(flower.size)
    daisy = torch.from_numpy(np.asarray(flower.crop((0, 0, side, side)).resize((192, 192), Image.Resampling.BICUBIC)).copy())[None]

    at_96, logits_96 = run(96, small)
    four = [0, 9, 17, 27]
    at_224, logits_224 = run(224, small[four])
    daisy_features, daisy_logits = run(192, daisy)
    top5 = daisy_logits[0].topk(5)
    print("daisy top 5:", top5.indices.tolist(), [round(v, 3) for v in top5.values.tolist()])
    full = np.asarray(flower.resize((224, 224), Image.Resampling.BICUBIC))
    print("whole flower.jpg at 224, bicubic:", run(224, torch.from_numpy(full.copy())[None])[1].argmax().item())
    assert top5.indices[0] == 985
    save_file({"images": small, "daisy": daisy[0]}, target / "images.safetensors")
    save_file({"features_96": at_96, "features_224": at_224, "daisy_features": daisy_features[0], "daisy_logits": daisy_logits[0]}, target / "expected.safetensors")
    place.write_json(target / "expected.json", {
        "images_at_224": four, "argmax_96": logits_96.argmax(1).tolist(), "argmax_224": logits_224.argmax(1).tolist(),
        "daisy_top5": top5.indices.tolist(), "feature_scale_96": at_96.abs().max().item(),
    })


if __name__ == "__main__":
    main()
