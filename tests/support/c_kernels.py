"""The kernels in C, for tests: skipped by name where there is no compiler."""

from __future__ import annotations

import shutil
from pathlib import Path
from unittest import mock

import pytest

from semantic_parrot.kernels import c_compiler, c_library

INFO = Path("/proc/cpuinfo")
#: What to compile for: this processor, and one whose registers are half as wide, if this one is more than that.
PROCESSORS = ("native", "x86-64-v3") if INFO.exists() and "avx512f" in INFO.read_text() else ("native",)


def kernels(processor: str = "native") -> c_library.CKernels:
    if not any(map(shutil.which, c_compiler.COMPILERS)):
        pytest.skip("there is no C compiler here")
    flags = tuple(flag.replace("native", processor) for flag in c_compiler.FLAGS)
    with mock.patch.object(c_compiler, "FLAGS", flags):
        return c_library.compiled()  # what a compiler that is there refuses is a failure
