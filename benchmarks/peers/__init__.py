"""The engines that `benchmarks/engine.py` compares, each in a file of its own."""

from peers.parrot import Parrot
from peers.peer import Peer

PEERS: dict[str, type[Peer]] = {peer.name: peer for peer in (Parrot,)}
