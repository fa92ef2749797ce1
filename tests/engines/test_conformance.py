"""Every engine that can be had in any environment: our own, and a remote one, which is a Parrot server here."""

from semantic_parrot.core.engines.conformance import EngineConformance
from semantic_parrot.core.engines.native import NativeEngine
from semantic_parrot.core.engines.remote import RemoteEngine


class TestNative(EngineConformance):
    @classmethod
    def make(cls, request):
        path = request.getfixturevalue("tiny_path")
        return NativeEngine(path, names=("tiny",), deterministic=True, threads=1, kv_tokens=16384)


class TestRemote(EngineConformance):
    @classmethod
    def make(cls, request):
        return RemoteEngine(request.getfixturevalue("parrot").url, dialect="parrot")
