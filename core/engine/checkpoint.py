"""A model directory, read before anything is loaded from it: each fault in one line that names the file or tensor.

Only safetensors are read, and no code that a checkpoint brings along is ever run.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from semantic_parrot.core.engines.protocol import ModelLoadError

#: What a config.json or `--dtype` may name.
DTYPES = ("float32", "bfloat16", "float16")
_STORED = {"F64": "float32", "F32": "float32", "BF16": "bfloat16", "F16": "float16"}
_WEIGHTS, _INDEX = "model.safetensors", "model.safetensors.index.json"


def read_config(path: Path) -> dict[str, Any]:
    """config.json, if it describes a model that can be served. Raises ModelLoadError."""
    from transformers import CONFIG_MAPPING

    if not path.is_dir():
        raise ModelLoadError(f"{path} is not a directory")
    config = _json(path, "config.json")
    model_type = config.get("model_type")
    if not isinstance(model_type, str):
        raise ModelLoadError(f"{path}: config.json has no model_type")
    if model_type not in CONFIG_MAPPING:
        if "auto_map" in config:
            raise ModelLoadError(f"{path}: {model_type} needs code of its own (auto_map), which is never run")
        raise ModelLoadError(f"{path}: transformers knows no model_type {model_type}")
    if not config.get("architectures"):
        raise ModelLoadError(f"{path}: config.json names no architectures")
    for part in (config, *(value for value in config.values() if isinstance(value, dict))):
        dtype = part.get("dtype", part.get("torch_dtype"))
        if isinstance(dtype, str) and dtype not in ("auto", "float64", *DTYPES):
            raise ModelLoadError(f"{path}: config.json names a dtype that is not served: {dtype}")
        if quantised := part.get("quantization_config"):
            how = quantised.get("quant_method") if isinstance(quantised, dict) else None
            raise ModelLoadError(f"{path}: quantised checkpoints are not served (quantization_config: {how})")
    return config


def read_weights(path: Path) -> str:
    """The dtype in which the weights are stored. Raises ModelLoadError unless all files are whole and fit the index."""
    if (path / _WEIGHTS).is_file():
        return _stored(path, {_WEIGHTS: set()})
    if (path / _INDEX).is_file():
        return _stored(path, _index(path))
    if pickled := sorted(p.name for pattern in ("*.bin", "*.pt", "*.pth") for p in path.glob(pattern)):
        raise ModelLoadError(
            f"{path} has pickled weights only ({pickled[0]}); safetensors are served: convert them once with "
            "AutoModelForCausalLM.from_pretrained(path).save_pretrained(path)"
        )
    raise ModelLoadError(f"{path} has no weights: neither {_WEIGHTS} nor {_INDEX}")


def _index(path: Path) -> dict[str, set[str]]:
    """The tensors that each file should have."""
    named = _json(path, _INDEX).get("weight_map")
    if not isinstance(named, dict) or not named or not all(isinstance(file, str) for file in named.values()):
        raise ModelLoadError(f"{path}: {_INDEX} has no weight_map from tensors to files")
    files: dict[str, set[str]] = {}
    for tensor, file in named.items():
        files.setdefault(file, set()).add(tensor)
    for file in files:
        if Path(file).name != file:
            raise ModelLoadError(f"{path}: {_INDEX} names a file outside the directory: {file}")
        if not (path / file).is_file():
            raise ModelLoadError(f"{path} lacks {file}, which {_INDEX} names")
    return files


def _stored(path: Path, files: dict[str, set[str]]) -> str:
    """The type of the most tensors, which all are in the file that should have them."""
    from safetensors import SafetensorError, safe_open

    count: dict[str, int] = {}
    for file, tensors in files.items():
        try:
            with safe_open(path / file, framework="pt") as opened:
                there = {name: opened.get_slice(name).get_dtype() for name in opened.keys()}  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            raise ModelLoadError(f"{path}: {file} is truncated or no safetensors file: {error}") from error
        if lacking := sorted(tensors - there.keys()):
            raise ModelLoadError(f"{path}: {file} lacks the tensor {lacking[0]}, which {_INDEX} says is in it")
        for name, dtype in there.items():
            if dtype.startswith(("F8", "F4", "F6")):
                raise ModelLoadError(f"{path}: quantised checkpoints are not served ({name} in {file} is {dtype})")
            count[dtype] = count.get(dtype, 0) + (dtype in _STORED)
    if not any(count.values()):
        raise ModelLoadError(f"{path} has no weights: no tensor of floating point in {', '.join(sorted(files))}")
    return _STORED[max(count, key=lambda dtype: count[dtype])]


def _json(path: Path, name: str) -> dict[str, Any]:
    try:
        found = json.loads((path / name).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelLoadError(f"{path} has no {name}") from None
    except (OSError, ValueError) as error:
        raise ModelLoadError(f"{path}: {name} can't be read as JSON: {error}") from error
    if not isinstance(found, dict):
        raise ModelLoadError(f"{path}: {name} is not a JSON object")
    return found
