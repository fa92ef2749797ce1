"""Regular expressions on RE2, whose time is linear in the text; re2 is loaded only when a program has one."""

from __future__ import annotations

from typing import Any

from semantic_parrot.core.errors import NoMatch, TooLarge, TransformFailed
from semantic_parrot.core.operations import Regex
from semantic_parrot.core.value import MAX_SIZE, shown

MAX_TEXT = 100_000
MAX_INSTRUCTIONS = 10_000
#: A search takes at worst time in proportion to the text ahead times the compiled pattern, and there is one search per
#: match. Their sum for one transform; measured at 7 ns each where RE2 is slowest, at 0.1 ns where it is not.
MAX_WORK = 100_000_000


def check_regex(op: Regex) -> None:
    """Raises TransformFailed, with the field in `where`, for a pattern that RE2 refuses or a group it does not have."""
    import re2

    try:
        compiled = compile_alone(op.pattern)
    except re2.error as error:
        why = error.args[0] if error.args else error
        text = why.decode(errors="replace") if isinstance(why, bytes) else str(why)
        raise TransformFailed(f"RE2 refuses {op.pattern[:80]!r}: {text}", where="pattern") from None
    if compiled.programsize > MAX_INSTRUCTIONS:
        raise TransformFailed(f"{op.pattern[:80]!r} is too large a pattern once compiled", where="pattern")
    groups = range(compiled.groups + 1) if isinstance(op.group, int) else compiled.groupindex
    if op.group not in groups:
        raise TransformFailed(f"{op.pattern[:80]!r} has no group {op.group!r}", where="group")


def compile_alone(pattern: str) -> Any:
    """`pattern` as RE2 takes it. Raises re2.error."""
    import re2

    options = re2.Options()
    options.log_errors = False
    # Not re2.compile, which keeps the last patterns for all who come: one that another tenant has just used would be
    # there sooner. Making it anew takes as long as the look-up for a small one, 2 ms for 5,000 instructions.
    return re2._Regexp(pattern, options)


def regex(op: Regex, text: str) -> Any:
    """Raises NoMatch or TooLarge."""
    if len(text) > MAX_TEXT:
        raise TooLarge(f"a regex reads no more than {MAX_TEXT} characters, and here are {len(text)}: {text[:80]!r}")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise NoMatch(f"half of a surrogate pair, which is no character: {shown(text)}") from None
    compiled = compile_alone(op.pattern)
    if op.mode in ("findall", "replace"):
        matches = _all(compiled, op.pattern, text)
        if op.mode == "findall":
            return [match.group(op.group) or "" for match in matches]
        return _replace(text, matches, op.replacement or "")
    _refuse_work(compiled.programsize * len(text), op.pattern, text)
    match = getattr(compiled, op.mode)(text)
    if match is None:
        raise NoMatch(f"{op.pattern[:80]!r} does not match {shown(text)}")
    found = match.group(op.group)
    if found is None:
        raise NoMatch(f"group {op.group!r} of {op.pattern[:80]!r} took no part in the match of {shown(text)}")
    return found


def _all(compiled: Any, pattern: str, text: str) -> list[Any]:
    work = compiled.programsize * len(text)
    _refuse_work(work, pattern, text)
    matches = []
    for match in compiled.finditer(text):
        matches.append(match)
        work += compiled.programsize * (len(text) - match.end())
        _refuse_work(work, pattern, text)
    return matches


def _refuse_work(work: int, pattern: str, text: str) -> None:
    if work > MAX_WORK:
        raise TooLarge(f"{pattern[:80]!r} takes too long on a text of {len(text)} characters: {text[:80]!r}")


def _replace(text: str, matches: list[Any], replacement: str) -> str:
    if len(text) + len(matches) * len(replacement) > MAX_SIZE:
        raise TooLarge(f"replacing makes a text of more than {MAX_SIZE} characters of {shown(text)}")
    pieces, end = [], 0
    for match in matches:
        pieces += [text[end : match.start()], replacement]
        end = match.end()
    return "".join([*pieces, text[end:]])
