"""How a loop takes in what it is asked: the text's tokens come first, for a long one from another thread."""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import partial

from semantic_parrot.core.engine.intake import Intake
from semantic_parrot.core.engine.messages import Reply, Tokens
from semantic_parrot.core.engine.preparing import Preparing
from semantic_parrot.core.engine.text import TextModel
from semantic_parrot.core.engines.protocol import UNDIRECTED, Directions
from semantic_parrot.core.request import Message, ModelRequest


class Receiving(ABC):
    def __init__(self, text: TextModel, intake: Intake) -> None:
        self.text = text
        self._intake = intake
        self._preparing = Preparing()

    def submit(
        self, id: int, request: ModelRequest, arrived: float, directions: Directions = UNDIRECTED
    ) -> Reply | None:
        """Queue a request; a Failed if it can't be run, which concerns no other."""
        make = partial(self._intake.tokens, request)
        then = partial(self._enter, id, request, arrived, directions)
        return self._preparing.tokens(id, request.content, request.tools, make, then)

    def tokenize(self, id: int, content: str | tuple[Message, ...]) -> Reply | None:
        """Its Tokens, or a Failed; None: they come with a later step."""
        return self._preparing.tokens(id, content, None, partial(self.text.encode, content), partial(Tokens, id))

    @abstractmethod
    def _enter(self, id: int, request: ModelRequest, arrived: float, directions: Directions, tokens: list[int]) -> None:
        """`tokens`: of its prompt. Raises ParrotError for what can't be run."""
