"""Python's collector of cyclic garbage, kept out of the way of requests.

A full collection walks all that is alive, modules and schemas included, and stops the event loop for as long: it is the
tail of the hop from a producer to its consumer (a tenth of a second with one program of 1,000 calls). What is there
once the server is up never goes, so it is not walked again; and the graph of a program, which is cyclic, lives in the
meantime through many collections of the young, so that full ones are made seldom. Small young generations keep
those short. `benchmarks/core.py` shows the pauses, with Python's own settings and with these.
"""

from __future__ import annotations

import gc

#: New objects that start a collection of the youngest; how many of those start one of the middle generation (10,000
#: objects: some milliseconds); how many of those a full one (500,000 objects: what ended programs may keep till then).
THRESHOLDS = (1_000, 10, 50)


def settle() -> None:
    """To be called once, when all is loaded."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)
