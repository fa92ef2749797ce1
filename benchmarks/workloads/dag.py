"""The conversations of an aiperf DAG file (`dag_jsonl`, aiperf 0.13), as apps."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Literal

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, convert_to_messages
from langchain_core.runnables import Runnable, RunnableConfig, RunnableLambda
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from workloads.job import Call, Job, Jobs
from workloads.texts import Texts


class _Strict(BaseModel):
    """What is not known here would change what is sent: it is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Said(_Strict):
    role: Literal["system", "user", "assistant"]
    content: str


class Fork(_Strict):
    child: str
    background: bool = False


class Spawn(_Strict):
    children: list[str] = Field(min_length=1)
    join_at: int | None = None


class Extra(_Strict):
    """Every answer is greedy and of `max_tokens` tokens, whatever these say."""

    ignore_eos: bool = True
    min_tokens: int | None = None
    temperature: float = 0.0
    seed: int | None = None


class Turn(_Strict):
    """`max_tokens`: of the answer, exactly. `delay`: milliseconds before it is sent. `model`: everybody has one."""

    messages: list[Said]
    max_tokens: int = Field(ge=1)
    model: str | None = None
    delay: float = Field(default=0.0, ge=0)
    extra: Extra | None = None
    forks: list[str | Fork] = []
    spawns: list[str | Spawn] = []

    @property
    def children(self) -> list[tuple[str, bool]]:
        """(session, whether it goes on from here)"""
        forked = [(fork if isinstance(fork, str) else fork.child, True) for fork in self.forks]
        spawned = [one for s in self.spawns for one in ([s] if isinstance(s, str) else s.children)]
        return [*forked, *((one, False) for one in spawned)]

    @property
    def ends(self) -> bool:
        """A fork that is not in the background takes the session's place."""
        return any(isinstance(fork, str) or not fork.background for fork in self.forks)

    def joins(self, at: int) -> dict[str, int]:
        """session → the turn that waits for it, for a turn that is number `at`."""
        return {
            child: at + 1 if isinstance(spawn, str) or spawn.join_at is None else spawn.join_at
            for spawn in self.spawns
            for child in ([spawn] if isinstance(spawn, str) else spawn.children)
        }


class Session(_Strict):
    session_id: str = Field(min_length=1)
    turns: list[Turn] = Field(min_length=1)


def read(path: Path) -> dict[str, Session]:
    """Raises ValueError naming the line."""
    found: dict[str, Session] = {}
    with path.open() as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                session = Session.model_validate_json(line)
            except ValidationError as error:
                fault = error.errors()[0]
                place = ".".join(map(str, fault["loc"]))
                raise ValueError(f"{path}, line {number}: {place}: {fault['msg']}") from None
            if session.session_id in found:
                raise ValueError(f"{path}, line {number}: a second session {session.session_id!r}")
            found[session.session_id] = session
    if not found:
        raise ValueError(f"{path}: no session")
    for session in found.values():
        _check(path, found, session, ())
    return found


def _check(path: Path, sessions: dict[str, Session], session: Session, above: tuple[str, ...]) -> None:
    name = session.session_id
    if name in above:
        raise ValueError(f"{path}: the session {name!r} starts itself")
    for turn in session.turns:
        for child, _ in turn.children:
            if child not in sessions:
                raise ValueError(f"{path}: the session {name!r} starts {child!r}, which is not there")
            _check(path, sessions, sessions[child], (*above, name))


def app(llm: BaseChatModel, sessions: dict[str, Session]) -> Runnable[str, dict[str, str]]:
    """A session's name → the last answer of it and of each session that it starts, by their path."""

    async def talk(name: str, before: list[BaseMessage], path: str, config: RunnableConfig) -> dict[str, str]:
        messages, text = list(before), ""
        started: dict[str, tuple[int, asyncio.Task[dict[str, str]]]] = {}
        async with asyncio.TaskGroup() as group:
            for i, turn in enumerate(sessions[name].turns):
                await asyncio.gather(*(task for at, task in started.values() if at <= i))
                await asyncio.sleep(turn.delay / 1e3)
                messages += convert_to_messages([said.model_dump() for said in turn.messages])
                answer = await llm.bind(max_tokens=turn.max_tokens).ainvoke(messages, config)
                text = str(answer.content)
                messages.append(AIMessage(text))
                joins = turn.joins(i)
                for child, on in turn.children:
                    here = f"{path}/{i}.{child}"
                    task = group.create_task(talk(child, messages if on else [], here, config))
                    started[here] = (joins.get(child, len(sessions[name].turns)), task)
                if turn.ends:
                    break
        found = {path: text}
        for _, task in started.values():
            found |= task.result()
        return found

    async def run(name: str, config: RunnableConfig) -> dict[str, str]:
        return await talk(name, [], name, config)

    return RunnableLambda(run)


def calls(sessions: dict[str, Session], name: str, texts: Texts) -> list[Call]:
    """Of a session and all that it starts, each after what it waits for."""
    found: list[Call] = []

    def talk(name: str, begins: tuple[tuple[str, int], ...], reads: tuple[int, ...], path: str) -> tuple[int, ...]:
        """The last calls of a session and of what it started; it goes on from `begins`, after `reads`."""
        waited: list[tuple[int, tuple[int, ...]]] = []
        last = reads
        for i, turn in enumerate(sessions[name].turns):
            last = (*last, *(one for at, ends in waited if at <= i for one in ends))
            own = sum(texts.count(said.content) for said in turn.messages)
            found.append(Call(own, turn.max_tokens, tuple(dict.fromkeys(last)), begins, turn.delay / 1e3))
            here = len(found) - 1
            begins, last = (*begins, (f"{path}.{i}", own + turn.max_tokens)), (here,)
            joins = turn.joins(i)
            for child, on in turn.children:
                ends = talk(child, begins if on else (), (here,), f"{path}/{i}.{child}")
                waited.append((joins.get(child, len(sessions[name].turns)), ends))
            if turn.ends:
                break
        return (*last, *(one for _, ends in waited for one in ends))

    talk(name, (), (), name)
    return found


def conversations(path: Path) -> Jobs:
    """All sessions that no other one starts, at once."""
    sessions = read(path)
    children = {child for s in sessions.values() for turn in s.turns for child, _ in turn.children}

    def jobs(llm: BaseChatModel, texts: Texts, scale: float, seed: str) -> list[Job]:
        own = app(llm, sessions)
        roots = [name for name in sessions if name not in children]
        return [Job(0.0, "conversation", own, name, tuple(calls(sessions, name, texts))) for name in roots]

    return jobs
