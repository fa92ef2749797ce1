"""From a directory that OpenVINO's tools exported to an engine. What can't be served is refused in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from semantic_parrot.core.engine.memory import kv_budget
from semantic_parrot.core.engine.messages import Options
from semantic_parrot.core.engine.openvino_loop import OpenVinoLoop
from semantic_parrot.core.engine.text import TextModel
from semantic_parrot.core.engines.protocol import ModelLoadError

MODEL = "openvino_model.xml"
#: Tokens in a block of its cache on a CPU.
BLOCK = 32
_CONTEXTS = 64  # a KV pool for more full contexts than this is never needed by default
_BYTES = {"float32": 4, "bfloat16": 2}
_HINTS = {"float32": "f32", "bfloat16": "bf16"}


def load(options: Options) -> tuple[OpenVinoLoop, int]:
    """The engine for a model directory, and its context in tokens. Raises ModelLoadError with one line."""
    path = Path(options.model_dir)
    if not (path / MODEL).is_file():
        how = f"export one: optimum-cli export openvino --model {path} --task text-generation-with-past DIRECTORY"
        raise ModelLoadError(f"{path} has no {MODEL}: {how}")
    try:
        import openvino
        import openvino_genai as genai
    except ImportError as error:
        raise ModelLoadError(f"OpenVINO is not installed: pip install 'semantic-parrot[openvino]' ({error})") from None
    from transformers import AutoTokenizer

    try:
        config: dict[str, Any] = json.loads((path / "config.json").read_text())
        tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True, trust_remote_code=False)
        context, vocabulary = int(config["max_position_embeddings"]), int(config["vocab_size"])
        dtype = "float32" if options.dtype == "auto" else options.dtype
        blocks = _blocks(options.kv_tokens, context, config, _BYTES[dtype])
        properties = {
            "INFERENCE_NUM_THREADS": options.threads,
            "INFERENCE_PRECISION_HINT": _HINTS[dtype],
            # By itself it would round keys and values to eight bits, and the answers with them.
            "KV_CACHE_PRECISION": _HINTS[dtype],
        }
        pipeline = genai.ContinuousBatchingPipeline(str(path), _scheduler(genai, options, blocks), "CPU", properties)
        ends = pipeline.get_config()
    except Exception as error:
        line = " ".join(str(error).split())
        raise ModelLoadError(f"{path} can't be loaded: {line[:300] or type(error).__name__}") from error
    eos = {*ends.stop_token_ids, ends.eos_token_id, tokenizer.eos_token_id} - {None, -1}
    loop = OpenVinoLoop(
        genai,
        openvino.Tensor,
        pipeline,
        TextModel(tokenizer),
        eos=eos,
        context=min(context, blocks * BLOCK),
        vocabulary=vocabulary,
        blocks=blocks,
        block=BLOCK,
    )
    return loop, min(context, blocks * BLOCK)


def _blocks(tokens: int | None, context: int, config: dict[str, Any], width: int) -> int:
    if tokens is None:
        heads = int(config["num_attention_heads"])
        size = int(config.get("head_dim") or config["hidden_size"] // heads)
        each = 2 * width * int(config["num_hidden_layers"]) * int(config.get("num_key_value_heads") or heads) * size
        tokens = min(kv_budget(torch.device("cpu")) // each, _CONTEXTS * context)
    return max(tokens // BLOCK, 1)


def _scheduler(genai: Any, options: Options, blocks: int) -> Any:
    scheduler = genai.SchedulerConfig()
    scheduler.num_kv_blocks = blocks
    scheduler.max_num_seqs = options.max_batch
    scheduler.max_num_batched_tokens = options.chunk
    scheduler.dynamic_split_fuse = True
    scheduler.enable_prefix_caching = options.prefix_cache
    return scheduler
