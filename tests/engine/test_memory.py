"""How much memory there is for keys and values: the machine's, our control groups', and what is made of it."""

from __future__ import annotations

import shutil

import pytest
import torch

from semantic_parrot.core.engine import memory
from semantic_parrot.core.engine.loader import load
from semantic_parrot.core.engine.messages import Options
from semantic_parrot.core.engines.protocol import ModelLoadError

GIB = 1 << 30
CPU = torch.device("cpu")


@pytest.fixture
def machine(tmp_path):
    """machine(available, cgroup, files): the root of one with so many bytes free; `files` under /sys/fs/cgroup."""

    def make(available, cgroup="0::/\n", **files):
        (tmp_path / "proc/self").mkdir(parents=True)
        (tmp_path / "proc/meminfo").write_text(f"MemTotal: 99999999 kB\nMemAvailable: {available >> 10} kB\n")
        (tmp_path / "proc/self/cgroup").write_text(cgroup)
        for name, text in files.items():
            path = tmp_path / "sys/fs/cgroup" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{text}\n")
        return tmp_path

    return make


def group(under, limit, used, cached):
    return {
        f"{under}memory.max": limit,
        f"{under}memory.current": used,
        f"{under}memory.stat": f"anon 5\ninactive_file {cached}",
    }


def test_no_group_has_a_limit(machine):
    assert memory.free_memory(machine(8 * GIB)) == 8 * GIB


def test_no_control_groups_at_all(machine):
    root = machine(8 * GIB)
    (root / "proc/self/cgroup").unlink()
    assert memory.free_memory(root) == 8 * GIB


def test_a_container_sees_its_own_group_as_the_root(machine):
    root = machine(8 * GIB, "0::/\n", **group("", 4 * GIB, 3 * GIB, GIB))
    assert memory.free_memory(root) == 2 * GIB  # what it caches of files can be had


def test_every_group_above_ours_counts(machine):
    inner, outer = group("a/b/", "max", GIB, 0), group("a/", 3 * GIB, GIB, 0)
    assert memory.free_memory(machine(8 * GIB, "0::/a/b\n", **inner, **outer)) == 2 * GIB


def test_groups_of_the_first_version(machine):
    files = {
        "memory/memory.limit_in_bytes": 2 * GIB,
        "memory/memory.usage_in_bytes": GIB,
        "memory/memory.stat": "inactive_file 7\ntotal_inactive_file 0",
    }
    root = machine(8 * GIB, "3:cpu,cpuacct:/docker/x\n2:memory:/docker/x\n", **files)
    assert memory.free_memory(root) == GIB


def test_a_group_past_its_limit_has_nothing(machine):
    assert memory.free_memory(machine(8 * GIB, **group("", GIB, 2 * GIB, 0))) == 0


@pytest.mark.parametrize(("free", "budget"), [(4 * GIB, GIB), (100 * GIB, 2 * GIB), (0, 0)])
def test_budget_on_a_cpu(monkeypatch, free, budget):
    monkeypatch.setattr(memory, "free_memory", lambda: free)
    assert memory.kv_budget(CPU) == budget


def test_budget_on_a_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (10 * GIB, 80 * GIB))
    assert memory.kv_budget(torch.device("cuda")) == 8 * GIB


@pytest.mark.parametrize(
    ("mounts", "in_memory"),
    [
        ("/dev/vda / ext4", False),
        ("/dev/vda / ext4,tmpfs {} tmpfs", True),
        ("tmpfs / tmpfs,/dev/vda {} ext4", False),
        ("/dev/vda / ext4,tmpfs {}/b tmpfs,tmpfs {}x tmpfs", False),
        ("tmpfs {} tmpfs,/dev/vda {} ext4", False),  # the later one covers the other
        (None, False),
    ],
)
def test_a_file_for_what_is_evicted_takes_a_tenth_of_a_free_disk_and_no_memory(machine, tmp_path, mounts, in_memory):
    root, directory = machine(GIB), tmp_path.resolve()
    if mounts is not None:
        lines = [f"{mount} rw 0 0" for mount in mounts.replace("{}", str(directory)).split(",")]
        (root / "proc/mounts").write_text("\n".join(lines))
    found = memory.offload_budget(directory, root)
    assert found == 0 if in_memory else 0 < found < shutil.disk_usage(directory).total / 5


def test_the_cache_is_what_the_budget_holds(tiny, monkeypatch):
    """Two layers with two KV heads of 16, keys and values in fp32: 512 bytes a token."""
    monkeypatch.setattr("semantic_parrot.core.engine.loader.kv_budget", lambda device: 512 * 1000)
    loop, context = load(Options(str(tiny("llama"))))
    assert loop.stats().kv_blocks_total == 1000 // 16
    assert context == 1000 // 16 * 16


def test_a_machine_without_memory_for_keys_and_values(tiny, monkeypatch):
    monkeypatch.setattr("semantic_parrot.core.engine.loader.kv_budget", lambda device: 512 * 100)
    with pytest.raises(ModelLoadError, match="too little free memory for keys and values: 51200 bytes hold 100 tokens"):
        load(Options(str(tiny("llama"))))


def test_a_request_longer_than_the_cache_is_refused_with_the_figures(tiny, bench, ask):
    b = bench(tiny("llama"), kv_tokens=256)
    for content, room, says in (
        ("B" * 300, None, "it has 300 tokens, which leaves no room in the 256 tokens that the KV cache holds"),
        ("B" * 200, 57, "its 200 tokens and max_tokens 57 exceed the 256 tokens that the KV cache holds"),
    ):
        failed = b.failed[b.submit(ask(content, room))]
        assert (failed.code, failed.message) == ("context_length_exceeded", f"the prompt is too long: {says}")
    assert b.run(ask("B" * 200, 56))[0].usage.completion == 56


def test_requests_as_long_as_the_cache_one_after_the_other(tiny, bench, ask):
    """The second shares a part of a block with the first, and needs every block there is."""
    b = bench(tiny("llama"), kv_tokens=256)
    b.run(ask("B" * 248, 8))
    second = b.submit(ask("B" * 8 + "D" * 240, 8))
    for _ in range(50):
        b.step()
    assert b.done[second].usage.completion == 8
