"""The one error tree. Each class fixes a code, an HTTP status and whether a retry may help.

ParrotError
├─ InvalidRequest (400)            a field is missing, unknown, unsupported or out of range
│  ├─ InvalidJSON
│  ├─ Unsupported                  HTTP or OpenAI has it, Parrot does not: refused by name, never ignored
│  ├─ InvalidProgram               the program as a whole
│  │  ├─ CyclicProgram
│  │  ├─ DanglingReference
│  │  └─ DuplicateProducer
│  ├─ EmptyPrompt
│  ├─ ResultPending                a deferred result is read before it is there
│  └─ ContextOverflow
├─ InvalidKey (401)                no API key, or one that is not known here
├─ Forbidden (403)                 a key that is not for this
├─ QuotaExceeded (402)             the run used up its tokens or cost; not 429, which clients repeat blindly
├─ NotFound (404)
│  ├─ UnknownModel
│  └─ SessionClosed (410)          it was there: it was closed, or nobody used it
├─ RequestTimeout (408)            its body did not come whole in time
├─ BodyTooLarge (413)
├─ IdempotencyKeyReused (422)      the key of another request
├─ TransformFailed (422)           a transform, map or branch that its input does not suit
│  ├─ WrongType                    a list where it needs a text …
│  ├─ NoMatch                      nothing there: a pattern, a path, an arm
│  └─ TooLarge                     past a bound: a map's, or that of what transforms read and make
├─ DependencyFailed (424)          a node whose input will never arrive
├─ Cancelled (499)
├─ DeadlineExceeded (504)         the run's deadline came before the value
├─ OutOfMemory (503)              the engine had no memory for this request alone
├─ RateLimited (429, retryable)    the tenant's rate or concurrency; it says when to try again
│  └─ QueueFull                    more wait than the server lets wait
├─ InsufficientQuota (429)         the tenant's quota is used up: nothing helps before its period ends
├─ Unavailable (503, retryable)    another try may work
│  ├─ EngineFailed                 the engine died or refused
│  ├─ Interrupted                  the server was started again in the middle of an answer that can't go on
│  ├─ JournalUnavailable           a run that is to be durable, and can't be made so
│  └─ Draining                     the server ends, and takes no new work
├─ BadLogits (500)                 the model's logits give no next token: NaN, infinity, or all ruled out
└─ InternalError (500)             our own bug

The engine process sends an error as `code` and message; `from_code` makes the same class again.
"""

from __future__ import annotations

from typing import Any, ClassVar


class ParrotError(Exception):
    """Base of every error that crosses a room. `where` names the place: a field path, a call, a variable.
    `retry_after`: seconds until another try may work, where that is known."""

    code: ClassVar[str] = "internal_error"
    kind: ClassVar[str] = "server_error"
    status: ClassVar[int] = 500
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, where: str | None = None, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.where = where
        self.retry_after = retry_after

    def body(self) -> dict[str, Any]:
        """The OpenAI error object, as HTTP bodies and `call.failed` events carry it."""
        return {
            "error": {"message": self.message, "type": self.kind, "param": self.where, "code": self.code},
        }


class InvalidRequest(ParrotError):
    code = "invalid_request"
    kind = "invalid_request_error"
    status = 400


class InvalidJSON(InvalidRequest):
    code = "invalid_json"


class Unsupported(InvalidRequest):
    code = "unsupported"


class InvalidProgram(InvalidRequest):
    code = "invalid_program"


class CyclicProgram(InvalidProgram):
    code = "cyclic_program"


class DanglingReference(InvalidProgram):
    code = "dangling_reference"


class DuplicateProducer(InvalidProgram):
    code = "duplicate_producer"


class EmptyPrompt(InvalidRequest):
    code = "empty_prompt"


class ResultPending(InvalidRequest):
    code = "result_pending"


class ContextOverflow(InvalidRequest):
    code = "context_length_exceeded"


class InvalidKey(ParrotError):
    code = "invalid_api_key"
    kind = "invalid_request_error"
    status = 401


class Forbidden(ParrotError):
    code = "forbidden"
    kind = "invalid_request_error"
    status = 403


class QuotaExceeded(ParrotError):
    code = "quota_exceeded"
    kind = "insufficient_quota"
    status = 402


class NotFound(ParrotError):
    code = "not_found"
    kind = "invalid_request_error"
    status = 404


class UnknownModel(NotFound):
    code = "model_not_found"


class SessionClosed(NotFound):
    code = "session_closed"
    status = 410


class RequestTimeout(ParrotError):
    code = "request_timeout"
    kind = "invalid_request_error"
    status = 408


class BodyTooLarge(ParrotError):
    code = "body_too_large"
    kind = "invalid_request_error"
    status = 413


class IdempotencyKeyReused(ParrotError):
    code = "idempotency_key_reused"
    kind = "invalid_request_error"
    status = 422


class TransformFailed(ParrotError):
    code = "transform_failed"
    kind = "transform_error"
    status = 422


class WrongType(TransformFailed):
    code = "wrong_type"


class NoMatch(TransformFailed):
    code = "no_match"


class TooLarge(TransformFailed):
    code = "too_large"


class DependencyFailed(ParrotError):
    """`because`: the message of the failure at the far end, so that those in between need not repeat each other."""

    code = "dependency_failed"
    kind = "dependency_error"
    status = 424

    def __init__(self, message: str, *, where: str | None = None, because: str = "") -> None:
        super().__init__(message, where=where)
        self.because = because or message


class Cancelled(ParrotError):
    code = "cancelled"
    kind = "cancelled"
    status = 499


class DeadlineExceeded(ParrotError):
    code = "deadline_exceeded"
    kind = "timeout"
    status = 504


class OutOfMemory(ParrotError):
    code = "out_of_memory"
    kind = "service_unavailable"
    status = 503


class RateLimited(ParrotError):
    code = "rate_limit_exceeded"
    kind = "rate_limit_error"
    status = 429
    retryable = True


class QueueFull(RateLimited):
    code = "queue_full"


class InsufficientQuota(ParrotError):
    code = "insufficient_quota"
    kind = "insufficient_quota"
    status = 429


class Unavailable(ParrotError):
    code = "unavailable"
    kind = "service_unavailable"
    status = 503
    retryable = True


class EngineFailed(Unavailable):
    code = "engine_failed"


class Interrupted(Unavailable):
    code = "interrupted"


class JournalUnavailable(Unavailable):
    code = "journal_unavailable"


class Draining(Unavailable):
    code = "draining"


class BadLogits(ParrotError):
    code = "bad_logits"


class InternalError(ParrotError):
    pass


def _tree(cls: type[ParrotError]) -> dict[str, type[ParrotError]]:
    found = {cls.code: cls}
    for sub in cls.__subclasses__():
        found |= _tree(sub)
    return found


def from_code(code: str, message: str, where: str | None = None) -> ParrotError:
    """The error that `code` names; an unknown code is an InternalError that says so."""
    cls = _tree(ParrotError).get(code)
    if cls is None:
        return InternalError(f"{code}: {message}", where=where)
    if cls is ParrotError:
        cls = InternalError
    return cls(message, where=where)
