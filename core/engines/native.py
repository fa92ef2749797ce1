"""The native engine's handle in the server process.

Neither torch nor transformers is loaded here; only the child loads them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from semantic_parrot.core.engine.messages import Options
from semantic_parrot.core.engines.kept_engine import KeptEngine
from semantic_parrot.core.engines.threads import default_threads
from semantic_parrot.core.engines.tree_engine import TreeEngine
from semantic_parrot.core.request import ModelRequest


class NativeEngine(KeptEngine, TreeEngine):
    """An engine process of our own for one model directory.

    `names`: what requests may call the model. `deterministic`: logits that do not depend on what else is in the
    batch. `threads`: of the child's torch (default: see `threads.py`). `kv_tokens`: size of the KV cache (default:
    by free memory). `kv_offload_tokens`: evicted KV that a temporary file keeps, to be copied back (default: as much
    as the cache holds, if the disk has plenty of room; 0: none), on a GPU pinned memory (default: none). `max_batch`:
    sequences that decode together; also the window. `chunk`: tokens a step. `dtype`: "auto" or a torch dtype's name.
    `device`: "auto", "cpu", "cuda". `kernels`: "torch", "c" (compiled here, on a CPU), "triton" (on a CPU interpreted,
    for tests: slow), "auto": Triton on a GPU, C on a CPU, torch where these can't be had. `overlap`: launch a step
    before the last one's tokens are read (default: on a GPU).
    `public`: requests whose beginnings, up to the first UNKNOWN, are filled at the start and kept for all salts.
    """

    def __init__(
        self,
        model_dir: str | Path,
        *,
        names: Sequence[str],
        deterministic: bool = False,
        name: str = "native-0",
        threads: int | None = None,
        kv_tokens: int | None = None,
        kv_offload_tokens: int | None = None,
        max_batch: int = 64,
        chunk: int = 512,
        prefix_cache: bool = True,
        dtype: str = "auto",
        device: str = "auto",
        kernels: str = "auto",
        overlap: bool | None = None,
        public: Sequence[ModelRequest] = (),
    ) -> None:
        options = Options(
            model_dir=str(model_dir),
            deterministic=deterministic,
            threads=threads or default_threads(),
            kv_tokens=kv_tokens,
            kv_offload_tokens=kv_offload_tokens,
            max_batch=max_batch,
            chunk=chunk,
            prefix_cache=prefix_cache,
            dtype=dtype,
            device=device,
            kernels=kernels,
            overlap=overlap,
            public=tuple(public),
        )
        super().__init__(name, names, options)
