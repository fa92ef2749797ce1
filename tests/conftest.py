"""For every test: no timed assertion, and Hypothesis' deadline is one; Triton interprets where there is no GPU; engines
compute with one thread, as there is a process of tests for each core."""

import contextlib
import os
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

# Triton decides while it is first imported, which transformers does for some models.
os.environ.setdefault("TRITON_INTERPRET", "0" if Path("/dev/nvidiactl").exists() else "1")

with contextlib.suppress(ModuleNotFoundError):  # the GPU machine lacks it: see tests/support/properties.py
    from hypothesis import settings

    settings.register_profile("parrot", deadline=None, print_blob=True)
    settings.load_profile("parrot")
