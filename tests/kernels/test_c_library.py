"""Compiling the kernels in C: once, for whoever comes later too; and what is said where it can't be done."""

from __future__ import annotations

import shutil

import pytest
import torch
from c_kernels import kernels

from semantic_parrot.kernels import c_compiler, c_library


def test_compiled_once(tmp_path, monkeypatch):
    kernels()  # or there is no compiler
    runs = []
    run = c_compiler.subprocess.run
    monkeypatch.setattr(c_compiler.subprocess, "run", lambda *a, **k: runs.append(a) or run(*a, **k))
    for _ in range(2):
        c_library.compiled(tmp_path)
    assert len(runs) == 1
    assert [path.suffix for path in tmp_path.iterdir()] == [".so"]  # and nothing half made
    other = tmp_path / "c"
    shutil.copytree(c_compiler.SOURCES, other)
    (other / "common.h").write_text((other / "common.h").read_text() + "\n/* changed */\n")
    monkeypatch.setattr(c_compiler, "SOURCES", other)
    c_library.compiled(tmp_path)
    assert len(runs) == 2


def test_no_compiler(tmp_path):
    with pytest.raises(c_compiler.NotCompiled, match="there is no C compiler"):
        c_library.compiled(tmp_path, compilers=("no-such-compiler",))


def test_a_compiler_that_fails(tmp_path):
    compiler = tmp_path / "cc"
    compiler.write_text("#!/bin/sh\necho 'this is too old' >&2\nexit 1\n")
    compiler.chmod(0o700)
    with pytest.raises(c_compiler.NotCompiled, match="this is too old"):
        c_library.compiled(tmp_path, compilers=(str(compiler),))
    assert not list(tmp_path.glob("*.so"))


def test_a_directory_that_can_not_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    kernels()
    with pytest.raises(c_compiler.NotCompiled, match="file"):
        c_library.compiled(tmp_path / "file" / "cache")


def test_threads_are_torchs_own():
    assert c_library._fork() is not None or "OpenMP" not in torch.__config__.parallel_info()
