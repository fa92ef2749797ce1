"""The kernels in C, for tests: skipped by name where there is no compiler."""

from __future__ import annotations

import shutil

import pytest

from semantic_parrot.kernels import c_library


def kernels() -> c_library.CKernels:
    if not any(map(shutil.which, c_library.COMPILERS)):
        pytest.skip("there is no C compiler here")
    return c_library.compiled()  # what a compiler that is there refuses is a failure
