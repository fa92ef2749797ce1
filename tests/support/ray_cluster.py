"""A Ray cluster of several nodes on this machine, each on a loopback address of its own. Nothing of it stays."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psutil

# Read when Ray is imported. At Ray's own niceness of 15, whatever else the machine does goes first.
os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}

from ray.cluster_utils import Cluster

MEMORY = 80_000_000  # bytes of each node's object store, at least what Ray takes


class RayCluster:
    """`address`: for `parrot serve --ray`. Every node has room for one replica that asks for a `seat`."""

    def __init__(self, head_seats: int = 1) -> None:
        self._count = 0
        self._seen: set[psutil.Process] = set()
        self._cluster = Cluster()
        self.head = self.add(head_seats, include_dashboard=False)
        self.address: str = self._cluster.address

    def add(self, seats: int = 1, **more: Any) -> Any:
        """A node joins."""
        self._count += 1
        host = f"127.0.{self._count // 250}.{2 + self._count % 250}"  # Ray takes 127.0.0.1 for any of ours
        return self._cluster.add_node(
            num_cpus=8,
            resources={"seat": seats} if seats else {},
            node_ip_address=host,
            object_store_memory=MEMORY,
            **more,
        )

    def kill(self, node: Any) -> None:
        """SIGKILL, of all of the node's processes."""
        self._look()
        mine = self._of(node)
        self._cluster.remove_node(node, allow_graceful=False)
        for process in mine:
            if process.is_running():
                process.kill()

    @property
    def others(self) -> list[Any]:
        """The nodes beside the head."""
        return sorted(self._cluster.worker_nodes, key=lambda node: str(node.node_ip_address))

    def replicas(self, node: Any) -> list[psutil.Process]:
        """The engines' processes there."""
        return [process for process in self._of(node) if _title(process).startswith("ray::EngineActor")]

    @staticmethod
    def _of(node: Any) -> set[psutil.Process]:
        found: set[psutil.Process] = set()
        for infos in node.all_processes.values():
            for info in infos:
                try:
                    process = psutil.Process(info.process.pid)
                    found |= {process, *process.children(recursive=True)}
                except psutil.NoSuchProcess:
                    pass
        return found

    def _look(self) -> None:
        for node in self._cluster.list_all_nodes():
            self._seen |= self._of(node)

    def close(self) -> None:
        self._look()
        try:
            self._cluster.shutdown()
        finally:
            _, left = psutil.wait_procs(self._seen, timeout=30)
            for process in left:
                process.kill()


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return ""


@contextmanager
def ray_cluster(nodes: int = 2, head_seats: int = 1) -> Iterator[RayCluster]:
    """`nodes`, the head among them."""
    cluster = RayCluster(head_seats)
    try:
        for _ in range(nodes - 1):
            cluster.add()
        yield cluster
    finally:
        cluster.close()
