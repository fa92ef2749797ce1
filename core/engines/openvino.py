"""OpenVINO GenAI on CPUs, in a process of its own that is kept as the native engine's is."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from pathlib import Path

from semantic_parrot.core.engine.messages import Options
from semantic_parrot.core.engines.kept_engine import KeptEngine
from semantic_parrot.core.engines.protocol import Keep
from semantic_parrot.core.engines.threads import default_threads
from semantic_parrot.core.errors import Unsupported
from semantic_parrot.core.request import ModelRequest


class OpenVinoEngine(KeptEngine):
    """`model_dir`: what `optimum-cli export openvino` writes. `dtype`: in which it computes and keeps keys and values,
    "float32" or "bfloat16". The others as for NativeEngine. Prefixes are kept by OpenVINO's own cache, which knows no
    salts."""

    def __init__(
        self,
        model_dir: str | Path,
        *,
        names: Sequence[str],
        name: str = "openvino-0",
        threads: int | None = None,
        kv_tokens: int | None = None,
        max_batch: int = 64,
        prefix_cache: bool = True,
        dtype: str = "float32",
    ) -> None:
        options = Options(
            runtime="openvino",
            model_dir=str(model_dir),
            threads=threads or default_threads(),
            kv_tokens=kv_tokens,
            max_batch=max_batch,
            prefix_cache=prefix_cache,
            dtype=dtype,
        )
        super().__init__(name, names, options)

    def check(self, request: ModelRequest) -> None:
        """Raises Unsupported for what its sampler does not do, or we don't ask of it."""
        sampling = request.sampling
        grammar = "response_format" if request.grammar is None else request.grammar.where
        lacking = {
            "logit_bias": bool(sampling.logit_bias),
            # It adds them to what is negative, instead of subtracting them: the token becomes likelier.
            "presence_penalty": sampling.presence_penalty != 0,
            "frequency_penalty": sampling.frequency_penalty != 0,
            "logprobs": sampling.logprobs is not None,
            grammar: request.grammar is not None,
            "tool_choice": request.tools is not None and request.tools.forced,
        }
        for field, asked in lacking.items():
            if asked:
                raise Unsupported(f"an engine that serves this model, OpenVINO, has no {field}", where=field)

    def prefill(self, key: Hashable, request: ModelRequest | None, keep: tuple[Keep, ...] = (), salt: str = "") -> None:
        """It fills no prompt before its request."""

    async def forget_prefixes(self) -> None:
        raise Unsupported(f"engine {self.name} can't forget its prefixes", where="/prefixes")
