"""The engines that `benchmarks/engine.py` compares, each in a file of its own."""

from peers.llama_cpp import LlamaCpp
from peers.openvino import OpenVino
from peers.parrot import Parrot
from peers.peer import Peer
from peers.transformers import Transformers
from peers.vllm import Vllm

PEERS: dict[str, type[Peer]] = {peer.name: peer for peer in (Parrot, LlamaCpp, Vllm, Transformers, OpenVino)}
