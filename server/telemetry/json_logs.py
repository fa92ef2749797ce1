"""Logs as JSON, a line a record: what the server warns of, and how each run and call ended.

No prompt, answer, value or name of a variable stands in them, unless that is asked for. Messages of errors may quote a
value, so a line has their code.
"""

from __future__ import annotations

import json
import logging
import time
import traceback
from typing import Any, ClassVar

from semantic_parrot.core.events import CallFailed, CallFinished
from semantic_parrot.core.execution import Ready
from semantic_parrot.core.observer import Observer, SingleCall
from semantic_parrot.core.run import Run

#: Where a record's own fields stand.
FIELDS = "parrot"

logger = logging.getLogger("semantic_parrot.events")


def say(message: str, **fields: Any) -> None:
    """A line of its own, where logs are JSON."""
    logger.info(message, extra={FIELDS: fields})


class JsonFormatter(logging.Formatter):
    """`prompts`: whether text that a client has sent may stand in a line. Without it, an exception is its type and
    where it was raised; its message may quote anything."""

    def __init__(self, *, prompts: bool = False) -> None:
        super().__init__()
        self._prompts = prompts

    def format(self, record: logging.LogRecord) -> str:
        when = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line: dict[str, Any] = {
            "time": f"{when}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, FIELDS, {}),
        }
        if record.exc_info is not None and record.exc_info[0] is not None:
            kind, error, trace = record.exc_info
            line["exception"] = kind.__name__
            where = traceback.format_exception(error) if self._prompts else traceback.format_tb(trace)
            line["trace"] = "".join(where)
        return json.dumps(line, default=str)


class EventLog(Observer):
    """One line for each run that begins, for each of its calls and for its end; and for each call that came alone."""

    singles: ClassVar[bool] = True

    def __init__(self, *, prompts: bool = False) -> None:
        self._prompts = prompts

    def run_began(self, run: Run) -> None:
        say("run began", **self._whose(run), lifetime=run.terms.parrot.lifetime)

    def call_ended(self, run: Run, ready: Ready, end: CallFinished | CallFailed) -> None:
        fields: dict[str, Any] = {**self._whose(run), "call": ready.id, "model": ready.body.get("model")}
        if isinstance(end, CallFinished):
            usage, times = end.response["usage"], end.timings
            fields |= {
                "status": "finished",
                "engine": None if end.schedule is None else end.schedule.engine,
                "prompt_tokens": usage["prompt_tokens"],
                "completion_tokens": usage["completion_tokens"],
                "queued": times.queued,
                "prefill": times.prefill,
                "decode": times.decode,
            }
        else:
            fields |= {"status": "failed", "http_status": end.status, "error": end.body["error"]["code"]}
        if self._prompts:
            fields |= {"request": ready.body, "response": getattr(end, "response", None) or getattr(end, "body", None)}
        say("call ended", **fields)

    def run_ended(self, run: Run) -> None:
        codes = sorted({error["code"] for error in run.errors().values()})
        usage = run.usage.model_dump()
        say("run ended", **self._whose(run), status=run.status, seconds=run.trace.seconds, errors=codes, usage=usage)

    def single_ended(self, call: SingleCall) -> None:
        fields: dict[str, Any] = {"call": call.id, "tenant": call.tenant, "model": call.body.get("model")}
        fields |= {"status": "failed" if call.done is None else "finished", "seconds": call.seconds}
        if call.done is None:
            fields["error"] = call.error
        else:
            done = call.done
            fields |= {
                "engine": None if done.placed is None else done.placed.engine,
                "prompt_tokens": done.usage.prompt,
                "completion_tokens": done.usage.completion,
                "queued": done.timings.queued,
                "prefill": done.timings.prefill,
                "decode": done.timings.decode,
            }
        if self._prompts:
            fields |= {"request": call.body, "response": None if call.done is None else call.done.text}
        say("call ended", **fields)

    @staticmethod
    def _whose(run: Run) -> dict[str, Any]:
        return {"run": run.id, "tenant": run.tenant}
