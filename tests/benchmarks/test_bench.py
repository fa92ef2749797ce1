"""The proof's harness, end to end: a workload on servers whose engine has no model, with comparators that are missing,
die or answer something else; and what is refused before anything starts."""

from __future__ import annotations

import asyncio
import json
import shlex
import signal
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from live import LocalServer

import bench
from engines.results import Results
from paced import PacedEngine
from peers.client import Answer
from proof import comparators, room, servers
from proof.comparators import Comparator, comparator, eager, lowered
from proof.run import Bench, Plan, difference
from semantic_parrot.adapters.openai_http import http
from semantic_parrot.core.engines.protocol import UNDIRECTED, Done, Usage
from semantic_parrot.core.errors import EngineFailed
from semantic_parrot.core.runtime import Runtime
from semantic_parrot.server import cli
from semantic_parrot.server.commands import others
from semantic_parrot.server.service import Settings
from workloads import WORKLOADS
from workloads.texts import Texts

REPEATS, RTTS = 2, (0.0, 2.0)
ROUNDS = REPEATS * len(RTTS)


class Speaking(PacedEngine):
    """Says another word than the others. `dies`: the number of the answer at which its server is gone."""

    def __init__(self, word: str = "word", dies: int = -1) -> None:
        super().__init__()
        self.word, self.dies, self.answers = word, dies, 0

    @property
    def dead(self) -> bool:
        return 0 <= self.dies <= self.answers

    async def generate(self, request: Any, directions: Any = UNDIRECTED) -> Any:
        self.answers += 1
        if self.dead:
            raise EngineFailed("gone")
        async for piece in super().generate(request, directions):
            yield replace(piece, text=piece.text.replace("word", self.word))


class Scripted:
    """A peer whose server is in this process."""

    def __init__(self, engine: Speaking | None) -> None:
        self._engine, self.stood = engine, 0

    def missing(self) -> str | None:
        return "not installed: run `make peers`" if self._engine is None else None

    def version(self) -> str:
        return "1"

    def start(self, setup: Any) -> Scripted:
        assert self._engine is not None
        self._server = LocalServer(Runtime([self._engine]), Settings(dev=True))
        return self

    def __enter__(self) -> Scripted:
        self._server.__enter__()
        self.port = int(self._server.base.rpartition(":")[2])
        return self

    def __exit__(self, *error: Any) -> None:
        self._server.__exit__(*error)

    def freeze(self) -> None:
        self.stood += 1

    def thaw(self) -> None:
        self.stood -= 1

    def ended(self) -> str | None:
        assert self._engine is not None
        return "it ended with exit code 9" if self._engine.dead else None

    def ask(self, process: Any, setup: Any, prompts: Any, tokens: int) -> list[Answer]:
        return [Answer("", 0.0, tuple(0.1 * (i + 1) for i in range(tokens)), None, None) for _ in prompts]


class Local(Comparator):
    __slots__ = ("engine",)

    def start_with(self, home: Path, flags: tuple[str, ...]) -> Any:
        return Scripted(self.engine)


def local(name: str, engine: Speaking | None, model: Any = eager) -> Local:
    found = Local(name, f"{name}, scripted", name if name != "parrot" else "own", model)
    object.__setattr__(found, "engine", engine)
    return found


@pytest.fixture
def texts() -> Texts:
    return Texts(["one", "two"], lambda text: len(text.split()))


@pytest.fixture
def kept(tmp_path: Path) -> Results:
    return Results(tmp_path / "bench.json")


def benched(
    kept: Results, texts: Texts, *comparators: Comparator, key: str = "W2", advance: Any = lambda: None
) -> list[str]:
    said: list[str] = []
    plan = Plan((replace(WORKLOADS[key], scale=0.02),), comparators, RTTS, REPEATS, 0, ("float32",), 1, Path("nowhere"))
    Bench(plan, kept, texts, {"float32": Path("default")}, said.append, advance).run()
    return said


def on_disk(kept: Results) -> dict[str, Any]:
    assert kept._path is not None
    found: dict[str, Any] = json.loads(kept._path.read_text())
    return found


def test_a_workload_runs_planned_and_call_by_call(kept: Results, texts: Texts) -> None:
    advanced: list[None] = []
    ours, other = local("parrot", Speaking(), lowered), local("E1", Speaking())
    benched(kept, texts, ours, other, advance=lambda: advanced.append(None))
    found = on_disk(kept)
    assert found["failures"] == []
    assert len(found["runs"]) == 2 * ROUNDS
    assert len(advanced) == 2 * (ROUNDS + 1)
    assert {name: check["same"] for name, check in found["checks"]["W2"].items()} == {"parrot": True, "E1": True}
    requests = {row["comparator"]: row["requests"] for row in found["runs"]}
    assert requests == {"parrot": 1, "E1": 17}
    (job,) = WORKLOADS["W2"].jobs(ours.model("http://nowhere/v1", "m"), texts, 0.02, "s")
    assert {row["tokens"] for row in found["runs"]} == {sum(call.tokens for call in job.calls)}
    assert all(row["figures"]["seconds"] > 0 for row in found["runs"])
    # A bound is of ours, at what tokens cost at that moment.
    assert all((row.get("bound", 0) > 0) is (row["comparator"] == "parrot") for row in found["runs"])
    bounded = [row for row in found["runs"] if "bound" in row]
    assert all(row["costs"]["decode_alone"] == pytest.approx(0.1) and row["costs"]["prefill"] > 0 for row in bounded)
    late = [r["figures"]["seconds"] >= 0.0018 for r in found["runs"] if r["rtt"] == 2.0]
    assert all(late), "the network took less than its round trip"


def test_answers_that_are_read_as_they_come_are_counted_and_timed(kept: Results, texts: Texts) -> None:
    benched(kept, texts, local("parrot", Speaking(), lowered), local("E1", Speaking()), key="W3")
    found = on_disk(kept)
    assert found["failures"] == []
    assert all(check["same"] and check["answers"] == 8 for check in found["checks"]["W3"].values())
    for row in found["runs"]:
        (expected,) = {sum(c.tokens for j in _jobs("W3", texts, row) for c in j.calls)}
        assert (row["calls"], row["tokens"]) == (8, expected)
        assert row["figures"]["tpot"] > 0


def test_all_but_one_server_stand_still(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers, "SETTLES", 0.0)
    own, bare, other = (Scripted(Speaking()) for _ in range(3))
    up = [
        servers.Running(comparator(name), cast(Any, None), cast(Any, process), "m")
        for name, process in (("parrot", own), ("E1", own), ("E0", bare), ("vllm", other))
    ]
    for one, stand in zip(up, ([0, 1, 1], [0, 1, 1], [1, 0, 1], [1, 1, 0]), strict=True):
        with servers.alone(one, up):
            assert [process.stood for process in (own, bare, other)] == stand
        assert [process.stood for process in (own, bare, other)] == [0, 0, 0]


async def test_a_connection_that_its_server_ends_as_it_is_used_costs_no_request() -> None:
    asked: list[int] = []  # by connection

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = len(asked)
        asked.append(0)
        while await reader.readuntil(b"\r\n\r\n"):
            asked[number] += 1
            if asked[number] == 2 or number > 1:
                break
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        async with comparators._connections() as client:
            assert [(await client.get(url)).text for _ in range(2)] == ["ok", "ok"]
            assert asked == [2, 1]
            with pytest.raises(http.RemoteProtocolError):
                await client.get(url)


@pytest.mark.usefixtures("semantic_kernel")
def test_an_app_on_semantic_kernel_runs_likewise(kept: Results, texts: Texts) -> None:
    benched(kept, texts, local("parrot", Speaking(), lowered), local("E1", Speaking()), key="W2-sk")
    found = on_disk(kept)
    assert found["failures"] == []
    assert {name: check["same"] for name, check in found["checks"]["W2-sk"].items()} == {"parrot": True, "E1": True}
    assert {row["comparator"]: row["requests"] for row in found["runs"]} == {"parrot": 1, "E1": 17}
    assert {row["tokens"] for row in found["runs"]} == {17 * 8}


def _jobs(key: str, texts: Texts, row: dict[str, Any]) -> list[Any]:
    seed = f"{key}/0/{row['dtype']}/{row['rtt']:g}/{row['repeat']}"
    return WORKLOADS[key].jobs(eager("http://nowhere/v1", "m"), texts, 0.02, seed)


def test_another_text_a_missing_one_and_a_death_are_rows(kept: Results, texts: Texts) -> None:
    dying = Speaking(dies=17 * 2 + 3)  # the check, the first round, and no further
    benched(
        kept, texts, local("parrot", Speaking(), lowered), local("other", Speaking("werd")), local("missing", None),
        local("dying", dying),
    )  # fmt: skip
    found = on_disk(kept)
    checks = found["checks"]["W2"]
    assert not checks["other"]["same"]
    assert "differs from character 2 on" in checks["other"]["difference"]
    assert checks["dying"]["same"]
    why = {f["engine"]: f["why"] for f in found["failures"]}
    assert why == {"missing": "not installed: run `make peers`", "dying": "it ended with exit code 9"}
    rows = [row["comparator"] for row in found["runs"]]
    assert {name: rows.count(name) for name in rows} == {"parrot": ROUNDS, "other": ROUNDS, "dying": 1}


def test_what_was_measured_before_an_interruption_is_kept(kept: Results, texts: Texts) -> None:
    left = iter(range(4))  # two checks, two runs

    def interrupted() -> None:
        if next(left) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        benched(kept, texts, local("parrot", Speaking(), lowered), local("E1", Speaking()), advance=interrupted)
    found = on_disk(kept)
    assert len(found["runs"]) == 2
    assert not found["finished"]


def test_answers_of_another_length_are_a_failure(kept: Results, texts: Texts) -> None:
    class Short(Speaking):
        async def generate(self, request: Any, directions: Any = UNDIRECTED) -> Any:
            yield Done("word", "length", Usage(1, 0, 1))

    benched(kept, texts, local("parrot", Speaking(), lowered), local("short", Short()))
    (failure,) = on_disk(kept)["failures"]
    assert failure["engine"] == "short"
    assert "its answers have 17 tokens instead of 136" in failure["why"]


@pytest.mark.parametrize(
    ("argv", "why"),
    [
        (["W0"], "no workload is called 'W0'"),
        ([], "which workloads?"),
        (["W2", "--against", "nobody"], "nobody to compare with is called 'nobody'"),
        (["W2", "--against", "without:luck"], "no optimisation is called 'luck'"),
        (["W2", "--rtt", "soon"], "milliseconds are wanted"),
        (["W2", "--rtt=-1"], "less than nothing"),
        (["W2", "--scale", "0"], "more than 0"),
        (["W2", "--scale", "100"], "GiB are"),
    ],
)
def test_what_can_not_be_is_refused_first(
    argv: list[str], why: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(bench, "measure", lambda *_: pytest.fail("it was started"))
    assert bench.main([*argv, "--json", str(tmp_path / "x.json")]) == 2
    assert why in capsys.readouterr().err
    assert not (tmp_path / "x.json").exists()


def test_memory_is_counted_for_every_server() -> None:
    work, shape = WORKLOADS["W2"], bench.MODELS["100m"]
    need = room.needs(work)
    one = int(room.weight_bytes(shape) + room.PROCESS + need.kv * room.kv_bytes(shape)) + 1
    room.check([work], shape, 2, 2 * one)
    with pytest.raises(room.TooLarge, match="for 3 servers"):
        room.check([work], shape, 3, 2 * one)


def test_client_and_servers_have_cores_of_their_own_where_there_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "usable", lambda: [2, 3, 6, 7])
    monkeypatch.setattr("shutil.which", lambda _: "/usr/bin/taskset")
    assert bench.shared_out(2) == ("2,3", [6, 7])
    assert bench.shared_out(4) == (None, [2, 3, 6, 7])
    monkeypatch.setattr("shutil.which", lambda _: None)
    assert bench.shared_out(2)[0] is None


def test_the_command_runs_the_checkouts_benchmark(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    run: list[list[str]] = []
    monkeypatch.setattr("os.execv", lambda _, argv: run.append(argv))
    with pytest.raises(SystemExit) as done:
        cli.app(["bench", "W2", "--rtt", "0", "--help"])
    assert done.value.code == 0
    (argv,) = run
    assert argv[1:] == [str(Path(bench.__file__)), "W2", "--rtt", "0", "--help"]
    monkeypatch.setattr(others, "__file__", str(tmp_path / "server" / "commands" / "others.py"))
    with pytest.raises(SystemExit) as done:
        cli.app(["bench", "W2"])
    assert done.value.code == 2
    assert "in the repository" in capsys.readouterr().err
    assert len(run) == 1


def test_a_benchmark_in_the_background_can_be_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "measure", lambda *_: signal.raise_signal(signal.SIGTERM))
    before = [(sign, signal.getsignal(sign)) for sign in (signal.SIGINT, signal.SIGTERM)]
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # as a shell starts what ends in &
    try:
        assert bench.main(["W8", "--model", "tiny", "--against", "", "--json", str(tmp_path / "b.json")]) == 130
    finally:
        for sign, handler in before:
            signal.signal(sign, handler)
    assert json.loads((tmp_path / "b.json").read_text())["finished"] is False


def test_make_bench_compares_with_all_that_it_says() -> None:
    root = Path(bench.__file__).parents[1]
    shown = subprocess.run(["make", "-n", "-C", root, "bench"], capture_output=True, text=True, check=True).stdout
    (command,) = [line for line in shown.splitlines() if " --against " in line]
    args = bench.arguments(shlex.split(command)[2:])
    assert args.against.split(",") == ["E0", "E1", "llama.cpp"]
    plan, _ = bench.plan_of(args)
    assert [one.name for one in plan.comparators] == ["parrot", "E0", "E1", "llama.cpp"]


def test_an_ablation_runs_what_it_says() -> None:
    assert comparator("without:planning").model is eager
    assert comparator("without:prefix-cache").flags == ("--no-prefix-cache",)
    capped = comparator("without:batch-cap")
    assert (capped.model, capped.flags) == (lowered, ("--disable=batch-cap",))
    assert capped.server not in ("own", "bare")


def test_a_difference_says_where() -> None:
    assert difference(["same", "same"], ["same", "same"]) is None
    assert difference(["a", "abc"], ["a", "abd"]) == "answer 1 differs from character 2 on: 'd', not 'c'"
    assert difference(["abc"], ["ab"]) == "answer 0 differs from character 2 on: '', not 'c'"
