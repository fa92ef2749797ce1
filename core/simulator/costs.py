"""What a modelled engine takes."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Costs:
    """Seconds. A step with `n` sequences over `context` resident tokens takes base + each * n + context * token; while
    prompts wait, each step also fills `chunk` of their tokens, at `prefill` seconds each. `cache`: prompt tokens that
    stay after use. `window`: sequences that decode together at most. `kv`: tokens for which there is memory, of all
    that runs and of what stays, a prefix that is shared counted once; who does not fit waits. 0: enough for all that
    runs. `tree`: 1 if attention reads a prefix that several share once for all of them. The bounds know of neither."""

    base: float = 0.012
    each: float = 0.0004
    token: float = 2e-7
    prefill: float = 0.0001
    chunk: int = 512
    cache: int = 200_000
    window: int = 64
    kv: int = 0
    tree: int = 0

    def step(self, n: int, context: float = 0.0) -> float:
        return self.base + self.each * n + self.token * context

    def work(self, prompt: float, fresh: float, output: int) -> float:
        """Seconds of a call that no batch saves. A context grows by a token with each step."""
        steps = max(0, output - 1)
        return fresh * self.prefill + steps * (self.each + self.token * (prompt + steps / 2))

    def steps(self, fresh: float, output: int) -> float:
        """Of a call; beside others they may be theirs as well."""
        return fresh / self.chunk + max(0, output - 1)

    def share(self, prompt: float, fresh: float, output: int) -> float:
        """What a call takes of an engine whose batch is full all the time; no schedule makes it less."""
        return self.work(prompt, fresh, output) + max(0, output - 1) * self.base / self.window


#: A large model on a GPU; a small one on a GPU, whose step hardly grows with the batch; and a CPU, whose step does.
PRESETS = {
    "default": Costs(),
    "gpu": Costs(base=0.008, each=0.00002, token=2e-9, prefill=0.00002, chunk=2048, cache=400_000, window=256),
    "cpu": Costs(base=0.005, each=0.002, token=1e-6, prefill=0.0003, chunk=512, cache=100_000, window=64),
}


def costs(name: str) -> Costs:
    """Of a preset, or of a JSON file with some of the fields. Raises ValueError with one line for neither."""
    if name in PRESETS:
        return PRESETS[name]
    known = {field.name for field in fields(Costs)}
    try:
        body = json.loads(Path(name).read_text())
        if not isinstance(body, dict) or body.keys() - known:
            raise ValueError(f"an object with some of {', '.join(sorted(known))} is wanted")
        for key, value in body.items():
            if not isinstance(value, int | float) or isinstance(value, bool) or value < 0:
                raise ValueError(f"{key}: no number of at least 0: {value!r}")
        found = Costs(**body)
        if found.base <= 0 or found.chunk < 1 or found.window < 1:
            raise ValueError("base, chunk and window are more than 0")
    except (OSError, ValueError) as error:
        raise ValueError(f"no costs {name!r} ({', '.join(PRESETS)}, or a JSON file): {error}") from None
    return found
