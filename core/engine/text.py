"""Between text and tokens: chat template, tokenisation, and text that streams out as tokens come."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from semantic_parrot.core.engine.begun import Begun, begin
from semantic_parrot.core.engine.tool_formats import tool_format
from semantic_parrot.core.engine.vocabulary import Vocabulary
from semantic_parrot.core.errors import EmptyPrompt, InvalidRequest
from semantic_parrot.core.grammar import Grammar
from semantic_parrot.core.request import UNKNOWN, Message
from semantic_parrot.core.tools import Tools

_HALF = "\ufffd"  # how a decoder shows the bytes of a character that is not whole


class TextModel:
    """A model's tokenizer and chat template (a `transformers` tokenizer). Several threads may use it at once."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        # The Rust tokenizer itself, where there is one: the wrapper around it costs more than the work.
        fast = getattr(tokenizer, "backend_tokenizer", None)
        decode: Callable[..., str] = tokenizer.decode if fast is None else fast.decode
        self._decode = decode
        self.vocabulary = Vocabulary(tokenizer)
        self._format = tool_format(tokenizer)
        self._added: dict[str, int] = tokenizer.get_added_vocab()
        # The first use may change settings of the Rust tokenizer, which must not happen while another thread uses it.
        self._ids(" ", special=False)

    @property
    def calls(self) -> str | None:
        """The name of the format of the model's tool calls, if it is one that is known."""
        return None if self._format is None else self._format.name

    def call_grammar(self, tools: Tools) -> Grammar:
        """Of an answer that calls one of `tools`."""
        assert self._format is not None, "the template has refused tools"
        return self._format.grammar(tools, self._added.get)

    def encode(self, content: str | Sequence[Message], tools: Tools | None = None) -> list[int]:
        """Token ids of a text (with the special tokens that the tokenizer adds by itself), or of messages as the chat
        template renders them for generation (which writes its special tokens out).

        Raises EmptyPrompt, and InvalidRequest where the model has no template or the template refuses.
        """
        if isinstance(content, str):
            tokens = self._ids(content, special=True) if content else []
        else:
            tokens = self._ids(self.render(content, tools), special=False)
        if not tokens:
            raise EmptyPrompt("the prompt is empty")
        return tokens

    def beginning(
        self, content: str | Sequence[Message], tools: Tools | None = None, before: Begun | None = None
    ) -> Begun:
        """Of a prompt of which only the text before the first UNKNOWN is known. `before`: of the same prompt, when less
        of it was known."""
        text = content if isinstance(content, str) else self.render(content, tools)
        special = isinstance(content, str)
        return begin(text.partition(UNKNOWN)[0], before, lambda whole: self._ids(whole, special=special), self._parts)

    def _ids(self, text: str, *, special: bool) -> list[int]:
        return list(self._tokenizer(text, add_special_tokens=special, verbose=False).input_ids)

    def _parts(self, texts: list[str]) -> list[list[int]]:
        return [list(ids) for ids in self._tokenizer(texts, add_special_tokens=False, verbose=False).input_ids]

    def render(self, messages: Sequence[Message], tools: Tools | None = None) -> str:
        if not self._tokenizer.chat_template:
            raise InvalidRequest("the model has no chat template: use completions", where="messages")
        chat = [_for_template(m) for m in messages]
        text = self._render(chat, None if tools is None else [json.loads(tool.body) for tool in tools.tools])
        if tools is not None:
            if self._format is None:
                raise InvalidRequest("the model's chat template has no tool calls of a known format", where="tools")
            if text == self._render(chat, None):
                raise InvalidRequest("the model's chat template ignores tools", where="tools")
        if any(m.calls for m in messages) and text == self._render([_without_calls(m) for m in chat], None):
            raise InvalidRequest("the model's chat template ignores tool_calls", where="messages")
        return text

    def _render(self, chat: list[dict[str, Any]], tools: list[dict[str, Any]] | None) -> str:
        try:
            return str(
                self._tokenizer.apply_chat_template(chat, tools=tools, tokenize=False, add_generation_prompt=True)
            )
        except Exception as error:  # whatever a template raises is about these messages
            raise InvalidRequest(f"the chat template refused the messages: {error}", where="messages") from error

    def decode(self, tokens: Sequence[int]) -> str:
        return self._decode(list(tokens), skip_special_tokens=True)

    def stream(self, stop: Sequence[str], *, calls: bool = False) -> TextStream:
        """`calls`: what opens a tool call is shown, even if it is a special token."""
        shown = calls and self._format is not None and any(text in self._added for text in self._format.openings)
        return TextStream(self._decode_all if shown else self.decode, stop)

    def _decode_all(self, tokens: Sequence[int]) -> str:
        return self._decode(list(tokens), skip_special_tokens=False)


def _for_template(message: Message) -> dict[str, Any]:
    chat: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.calls:
        # Templates write the arguments themselves.
        chat["tool_calls"] = [
            call.body() | {"function": {"name": call.name, "arguments": json.loads(call.arguments or "{}")}}
            for call in message.calls
        ]
    named = {"tool_call_id": message.call_id, "name": message.name}
    return chat | {key: value for key, value in named.items() if value is not None}


def _without_calls(chat: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in chat.items() if key != "tool_calls"}


class TextStream:
    """The text of one answer. `push` and `finish` return what may be shown now; together they are `text`.

    No half of a character is shown, nor a beginning of a stop string that may yet complete. Text ends before the stop
    string that is whole first; of several that are, before the one that begins first.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str], stop: Sequence[str]) -> None:
        self.stopped = False
        self.shown = 0  # characters
        self._decode = decode
        self._stop = tuple(stop)
        self._window: list[int] = []  # tokens from the last clean cut but one: what a decoder needs for context
        self._cut = 0  # how many of them are shown
        self._before = ""  # the text of those
        self._held = ""
        self._parts: list[str] = []

    @property
    def text(self) -> str:
        return "".join(self._parts)

    @property
    def known(self) -> int:
        """Characters so far: shown, or held back."""
        return self.shown + len(self._held)

    def push(self, token: int, *, stops: bool = True) -> str:
        """`stops` False: the text up to here is not searched for stop strings."""
        self._window.append(token)
        text = self._decode(self._window)
        if text.endswith(_HALF) or len(text) <= len(self._before):
            return ""
        new = text[len(self._before) :]
        self._window = self._window[self._cut :]
        self._cut = len(self._window)
        self._before = self._decode(self._window)
        return self._show(new, last=False, stops=stops)

    def finish(self) -> str:
        """The rest, at the end of the answer."""
        if self.stopped:
            return ""
        return self._show(self._decode(self._window)[len(self._before) :], last=True)

    def _show(self, new: str, *, last: bool, stops: bool = True) -> str:
        text = self._held + new
        stop_at = self._stop if stops else ()
        found = [at for at in (text.find(stop) for stop in stop_at) if at >= 0]
        if found:
            self.stopped = True
            text, self._held = text[: min(found)], ""
        else:
            keep = 0 if last else max((_overlap(text, stop) for stop in stop_at), default=0)
            text, self._held = text[: len(text) - keep], text[len(text) - keep :]
        self._parts.append(text)
        self.shown += len(text)
        return text


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that is a beginning of `stop`."""
    return next((n for n in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:n])), 0)
