"""From a model directory to an engine. What can't be served is refused here, by name and in one line."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch

from semantic_parrot.core.engine import attention, backend
from semantic_parrot.core.engine.checkpoint import read_config, read_weights
from semantic_parrot.core.engine.families import TESTED
from semantic_parrot.core.engine.grammar import Grammars, grammar_tokenizer
from semantic_parrot.core.engine.kv import BLOCK_SIZE, BlockPool, PagedCache, bytes_per_token
from semantic_parrot.core.engine.loop import EngineLoop
from semantic_parrot.core.engine.memory import kv_budget
from semantic_parrot.core.engine.messages import Options
from semantic_parrot.core.engine.offload import Offload
from semantic_parrot.core.engine.offload_store import open_store
from semantic_parrot.core.engine.packing import pack
from semantic_parrot.core.engine.planner import Planner
from semantic_parrot.core.engine.precision import choose
from semantic_parrot.core.engine.prefix_tree import PrefixTree
from semantic_parrot.core.engine.probe import probe
from semantic_parrot.core.engine.runner import Runner
from semantic_parrot.core.engine.text import TextModel
from semantic_parrot.core.engines.protocol import ModelLoadError
from semantic_parrot.kernels.c_library import compiled

logger = logging.getLogger(__name__)

_LEAST = 256  # tokens: nothing is served with a smaller cache, unless it was asked for
_CONTEXTS = 64  # a KV pool for more full contexts than this is never needed by default


def load(options: Options) -> tuple[EngineLoop, int]:
    """The engine for a model directory, and its context in tokens. Raises ModelLoadError with one line."""
    path = Path(options.model_dir)
    device = torch.device(_device(options.device))
    kernels = backend.choose(options.kernels, device)
    with _quiet(), _refusing(path):
        config, tokenizer = _describe(path)
        weights = getattr(torch, read_weights(path))
        stored = config.dtype if isinstance(config.dtype, torch.dtype) else weights
        dtype = choose(options.dtype, stored, path, device=device, deterministic=options.deterministic)
        model = _weights(path, config, dtype).to(device).eval()
        _fits(path, tokenizer, model)
        layers = probe(model, _long_after(config))
        _judge(model, config, options)
        backend.apply(kernels, model, deterministic=options.deterministic)
    if kernels != "triton" and device.type == "cpu" and not options.deterministic and config.model_type in TESTED:
        pack(model, kernels=compiled() if kernels == "c" else None)
    shapes = [layers[index] for index in sorted(layers)]
    # Keys and values in fp32 on a CPU: its attention kernels are slow in anything less.
    kept = torch.float32 if device.type == "cpu" else model.dtype
    context = int(getattr(config, "max_position_embeddings", None) or 4096)
    tokens = options.kv_tokens
    if tokens is None:
        budget = kv_budget(device)
        tokens = min(budget // bytes_per_token(shapes, kept), _CONTEXTS * context)
        if tokens < min(context, _LEAST):
            few = f"{budget} bytes hold {tokens} tokens"
            raise ModelLoadError(f"{path}: too little free memory for keys and values: {few}")
    blocks = max(tokens // BLOCK_SIZE, 1)
    context = min(context, blocks * BLOCK_SIZE)
    pool = BlockPool(blocks)
    cache = PagedCache.allocate(shapes, blocks, kept, device)
    store = open_store(cache, options.kv_offload_tokens) if options.prefix_cache else None
    offload = Offload(store, store.per_step) if store is not None else None
    tree = PrefixTree(pool, offload) if options.prefix_cache else None
    long_after = _long_after(config)
    planner = Planner(
        pool, tree, budget=options.chunk, max_batch=options.max_batch, long_after=long_after, offload=offload
    )
    order = {layer: n for n, layer in enumerate(sorted(layers))}
    decode = backend.decode(kernels, model, cache, order, deterministic=options.deterministic)
    runner = Runner(
        model,
        cache,
        order,
        deterministic=options.deterministic,
        long_after=long_after,
        kernels=kernels,
        store=store,
        decode=decode,
        forward=backend.forward(kernels, model, deterministic=options.deterministic),
    )
    eos = _eos(model, tokenizer)
    text, size = TextModel(tokenizer), int(config.vocab_size)
    grammars = Grammars(partial(grammar_tokenizer, tokenizer, size, min(eos, default=None)))
    # On a CPU nothing runs beside the host, and what is computed for nothing costs time.
    overlap = device.type != "cpu" if options.overlap is None else options.overlap
    engine = EngineLoop(
        runner,
        planner,
        pool,
        text,
        grammars,
        eos=eos,
        context=context,
        vocabulary=size,
        offload=offload,
        overlap=overlap,
    )
    return engine, context


def _describe(path: Path) -> tuple[Any, Any]:
    """The model's text configuration and its tokenizer."""
    from transformers import AutoConfig, AutoTokenizer

    read_config(path)
    whole = AutoConfig.from_pretrained(path, local_files_only=True, trust_remote_code=False)
    if whole.is_encoder_decoder:
        raise ModelLoadError(f"{path}: {whole.model_type} is an encoder-decoder; only decoder-only models are served")
    config = whole.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or ()) - {"full_attention", "sliding_attention"}
    if kinds:
        raise ModelLoadError(f"{path}: {config.model_type} has layers of a kind not served: {', '.join(sorted(kinds))}")
    if not any((path / name).is_file() for name in ("tokenizer.json", "tokenizer.model", "vocab.json")):
        raise ModelLoadError(f"{path} has no tokenizer")
    return config, AutoTokenizer.from_pretrained(path, local_files_only=True, trust_remote_code=False)


def _weights(path: Path, config: Any, dtype: torch.dtype) -> Any:
    from transformers import AutoModelForCausalLM

    attention.register()
    try:
        model, info = AutoModelForCausalLM.from_pretrained(
            path, dtype=dtype, attn_implementation=attention.NAME, output_loading_info=True,
            local_files_only=True, trust_remote_code=False, use_safetensors=True, ignore_mismatched_sizes=True,
        )  # fmt: skip
    except ValueError as error:
        if "attn_implementation" in str(error) or "AutoModelForCausalLM" in str(error):
            raise ModelLoadError(f"{path}: the architecture {config.model_type} is not served") from error
        raise
    misshaped = {f"{name}: {list(has)} instead of {list(wants)}" for name, has, wants in info["mismatched_keys"]}
    for what, names in (
        ("lacks weights", info["missing_keys"]),
        ("has weights of another shape", misshaped),
        ("has weights that the model does not know", info["unexpected_keys"]),
    ):
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            raise ModelLoadError(f"{path} {what}: {min(names)}{more}")
    if not type(model)._supports_attention_backend:
        raise ModelLoadError(f"{path}: {config.model_type} does not let its attention be replaced")
    return model


def _fits(path: Path, tokenizer: Any, model: Any) -> None:
    tokens, rows = max(tokenizer.get_vocab().values()) + 1, model.get_input_embeddings().weight.shape[0]
    if tokens > rows:
        raise ModelLoadError(f"{path}: the tokenizer has {tokens} tokens, and the model embeds {rows}")


def _judge(model: Any, config: Any, options: Options) -> None:
    """What the probe can't see: a short forward is right, and a long one or one in company is not."""
    # A sparse attention reads everything while there is little, as in the probe.
    if sparse := [name for name in config.to_dict() if name.startswith("index_")]:
        raise attention.Unsupported(f"an indexer that chooses what attention reads ({sparse[0]})")
    experts = any("expert" in f"{name} {type(part).__name__}".lower() for name, part in model.named_modules())
    if options.deterministic and experts:
        raise attention.Unsupported("in deterministic mode, mixtures of experts whose bits do not depend on the batch")
    if config.model_type not in TESTED:
        logger.warning("the model family %s is served untested: docs/engine.md lists those that are", config.model_type)


def _eos(model: Any, tokenizer: Any) -> set[int]:
    found: set[int] = set()
    config = model.config.get_text_config()
    for eos in (model.generation_config.eos_token_id, config.eos_token_id, tokenizer.eos_token_id):
        found |= set(eos) if isinstance(eos, list) else {eos} if eos is not None else set()
    return found


def _long_after(config: Any) -> int | None:
    """The length past which LongRoPE computes a sequence with its long factors."""
    rope = getattr(config, "rope_parameters", None) or {}
    nested = [part for part in rope.values() if isinstance(part, dict)] or [rope]
    found = {part["original_max_position_embeddings"] for part in nested if part.get("rope_type") == "longrope"}
    if len(found) > 1:
        raise attention.Unsupported("LongRoPE with several thresholds")
    return int(found.pop()) if found else None


def _device(name: str) -> str:
    return name if name != "auto" else "cuda" if torch.cuda.is_available() else "cpu"


@contextmanager
def _refusing(path: Path) -> Iterator[None]:
    """Whatever goes wrong while a model loads, in one line."""
    try:
        yield
    except ModelLoadError:
        raise
    except attention.Unsupported as error:
        raise ModelLoadError(f"{path}: the architecture is not served: it needs {error}") from error
    except Exception as error:
        line = " ".join(str(error).split())
        raise ModelLoadError(f"{path} can't be loaded: {line[:300] or type(error).__name__}") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """transformers without its progress bars and its advice."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
