"""The machine, the model on it, and the address: whether `parrot serve` would start, and how well it would run."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from semantic_parrot.core.engines.protocol import ModelLoadError
from semantic_parrot.core.engines.threads import default_threads
from semantic_parrot.server.doctor.findings import Finding
from semantic_parrot.server.engines import model_names
from semantic_parrot.server.listener import StartError, bind
from semantic_parrot.server.options import ServeOptions

GIB = 1 << 30


def machine(options: ServeOptions) -> Iterator[Finding]:
    """Needs the extra `engine`."""
    import torch

    from semantic_parrot.core.engine.memory import free_memory, offload_budget
    from semantic_parrot.core.engine.precision import multiplies_bf16

    version, threads = sys.version.split()[0], default_threads(options.natives)
    yield Finding("good", "Python", f"{version}; {os.cpu_count()} cores, {threads} threads for each engine")
    if torch.cuda.is_available():
        free, whole = torch.cuda.mem_get_info()
        name = torch.cuda.get_device_name()
        yield Finding("good", "GPU", f"{name}, {free / GIB:.1f} of {whole / GIB:.1f} GiB free")
    else:
        yield Finding("note", "GPU", "none that torch can use: models run on the CPU")
        if multiplies_bf16():
            yield Finding("good", "processor", "multiplies bf16 itself")
        else:
            slow = "no instructions for bf16: such weights are computed in fp32, in twice the memory"
            yield Finding("note", "processor", slow)
    yield Finding("good", "memory", f"{free_memory() / GIB:.1f} GiB free")
    folder = Path(tempfile.gettempdir())
    if offload_budget(folder):
        yield Finding("good", "disk", f"evicted KV goes to a file in {folder}")
    elif options.kv_offload_tokens is None:
        yield Finding("note", "disk", f"{folder} is in memory: evicted KV is not kept", "TMPDIR=/a/disk parrot serve …")


def model(options: ServeOptions) -> Iterator[Finding]:
    """Reads what stands in its directory, but no weights."""
    from semantic_parrot.core.engine.checkpoint import read_config, read_weights
    from semantic_parrot.core.engine.families import TESTED
    from semantic_parrot.core.engine.memory import free_memory

    directory, names = model_names(options.model)
    path = Path(directory)
    try:
        family, stored = read_config(path)["model_type"], read_weights(path)
    except ModelLoadError as error:
        yield Finding(
            "bad",
            "model",
            str(error),
            "a directory with config.json, tokenizer and safetensors, as `hf download` makes it",
        )
        return
    size = sum(file.stat().st_size for file in path.glob("*.safetensors")) * options.natives
    about = f"{names[0]}: {family}, {size / GIB:.2f} GiB of {stored} weights"
    if size > free_memory():
        much = f"{about}, more than the {free_memory() / GIB:.2f} GiB of memory that is free"
        yield Finding("bad", "model", much, "a smaller model, fewer --engines, or a machine with more")
    elif family in TESTED:
        yield Finding("good", "model", about)
    else:
        untested = f"{about}; this family is not tested: the engine compares it with transformers when it loads it"
        yield Finding("note", "model", untested, f"tested are {', '.join(sorted(TESTED))}")
    if not _has_template(path):
        yield Finding("note", "chat", "the model has no chat template: only completions work")


def _has_template(path: Path) -> bool:
    from transformers import AutoTokenizer

    return bool(AutoTokenizer.from_pretrained(path, local_files_only=True).chat_template)


def address(options: ServeOptions) -> Iterator[Finding]:
    where = f"{options.host} port {options.port}"
    try:
        with bind(options.host, options.port) as sock:
            sock.listen()
    except (StartError, OSError) as error:
        said = str(error) if isinstance(error, StartError) else f"cannot listen on {where}: {error.strerror or error}"
        yield Finding("bad", "address", said, "parrot serve --port 0 takes a free one")
    else:
        yield Finding("good", "address", f"{where} is free")
