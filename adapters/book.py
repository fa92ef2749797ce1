"""The claim book: one submitted program and what has come of each of its calls."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence

from semantic_parrot.adapters.answers import Answer, Failed, Finished, Lost
from semantic_parrot.adapters.endpoint import Endpoint
from semantic_parrot.adapters.plan import PlannedCall
from semantic_parrot.core import events
from semantic_parrot.core.errors import ParrotError
from semantic_parrot.core.model import RESERVED
from semantic_parrot.core.program import Program
from semantic_parrot.core.wire import content_key


class Book:
    """`headers`: of the request that carries the program. `run_id`: once the server has named the run. `ended`: nothing
    more will come. `refused`: why the server did not take the program."""

    def __init__(
        self,
        endpoint: Endpoint,
        calls: Sequence[PlannedCall],
        program: Program,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.endpoint = endpoint
        self.program = program
        self.headers = headers or {}
        self.run_id: str | None = None
        self.ended = False
        self.refused: ParrotError | None = None
        self._lock = threading.Lock()
        self._calls = {call.variable: call for call in calls}
        # A call without references is known already, so a claim need not wait until the server has announced it. How
        # often a repeated one is executed, only the server will know.
        self._answers = {
            call.variable: Answer(call.variable, call, None if call.inputs else content_key(call.request))
            for call in calls
            if not call.repeated
        }

    # The courier's side.

    def record(self, event: events.Event) -> None:
        match event:
            case events.RunStarted():
                self.run_id = event.id
            case events.CallReady():
                self._answer(event.id).confirm(event.content_key)
            case events.VariableDelta():
                self._answer(event.id).add(event.text, event.logprobs)
            case events.CallFinished():
                self._answer(event.id).settle(Finished(event.content_key, event.response))
            case events.CallFailed():
                self._answer(event.id).settle(Failed(event.content_key, event.status, event.body))
            case events.CallAborted():
                self._answer(event.id).settle(Lost(event.reason))
            case events.RunFinished():
                self.end("the run ended without an answer to this call")

    def _answer(self, id: str) -> Answer:
        """The answer of call `id`; one of a map's body, ``list0[3].text1``, is first heard of now."""
        answer = self._answers.get(id)
        if answer is None:
            answer = Answer(id, self._calls[id.rpartition(RESERVED)[2]], None)
            with self._lock:
                self._answers[id] = answer
        return answer

    def end(self, reason: str) -> None:
        """Nothing more will come: what has no answer by now never gets one."""
        self.ended = True
        for answer in self.answers():
            answer.settle(Lost(reason))

    # The app's side.

    def take(self, key: str) -> Answer | None:
        """The answer to the request `key`, which from now on belongs to the caller alone; or None."""
        with self._lock:
            for answer in self._answers.values():
                if answer.key == key and not answer.taken and not isinstance(answer.outcome, Lost):
                    answer.taken = True
                    return answer
        return None

    def reserve(self, variable: str | None) -> Answer | None:
        """The answer that makes `variable`, if this program does, for the caller alone."""
        answer = None if variable is None else self._answers.get(variable)
        if answer is not None:
            answer.taken = True
        return answer

    def call_at(self, where: str) -> PlannedCall | None:
        """The call that an error of the whole program is about."""
        for place, node in self.program.places():
            if where.startswith(f"{place}."):
                found = self._calls.get(node.id)
                if found is not None:
                    return found
        return None

    def damaged(self) -> bool:
        """Whether some of its answers were lost."""
        return any(isinstance(answer.outcome, Lost) for answer in self.answers())

    def answers(self) -> Sequence[Answer]:
        with self._lock:
            return tuple(self._answers.values())

    def unclaimed(self) -> list[Answer]:
        """Answers that the server works, or worked, on for nobody."""
        return [
            answer
            for answer in self.answers()
            if not (answer.taken or isinstance(answer.outcome, Lost)) or (answer.abandoned and answer.outcome is None)
        ]
