"""What a Parrot server knows of an answer or a text, and OpenAI's classes would drop or guess."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import openai
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from langchain_openai import ChatOpenAI

from semantic_parrot.adapters.hints import HINTS
from semantic_parrot.adapters.transport import AsyncClient, SyncClient

#: Of a response, and of a message's `response_metadata`: where and how fast the answer was made.
PARROT = "parrot"
#: Of a message, as vLLM, SGLang and DeepSeek call it; kept under the same name in `additional_kwargs`.
REASONING = "reasoning_content"


def count_tokens(client: openai.OpenAI, **content: Any) -> list[int] | None:
    """Token ids of a `prompt` or of `messages`, from the server's own tokenizer; None if it has no such route. Errors
    are those of the OpenAI client."""
    url = f"{str(client.base_url).rstrip('/').removesuffix('/v1')}/tokenize"
    try:
        answer: Any = client.post(url, cast_to=object, body=content)
    except openai.NotFoundError as error:
        if error.code == "model_not_found":
            raise
        return None
    tokens: list[int] = answer["tokens"]
    return tokens


class Closing:
    """Of a model whose HTTP clients are ours, or the app's, which are left alone."""

    def close(self: Any) -> None:
        """Close the connections of blocking calls. A later call opens new ones."""
        if isinstance(self.http_client, SyncClient):
            self.http_client.release()

    async def aclose(self: Any) -> None:
        """Close all connections of this event loop, and those of blocking calls. A later call opens new ones."""
        if isinstance(self.http_async_client, AsyncClient):
            await self.http_async_client.release()
        self.close()


class Served(Closing, ChatOpenAI):
    """`response_metadata["parrot"]`: `engine`, `cached_tokens`, and the seconds `queued`, in `prefill` and in `decode`.
    Tokens are counted by the server's tokenizer and chat template. Hints of a call that goes out by itself are in the
    field `parrot` of its body; what the app puts there itself wins."""

    def _generate(self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> ChatResult:
        return super()._generate(messages, stop, run_manager, **self._hinted(kwargs))

    async def _agenerate(self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> ChatResult:
        return await super()._agenerate(messages, stop, run_manager, **self._hinted(kwargs))

    def _stream(self, *args: Any, **kwargs: Any) -> Any:
        return super()._stream(*args, **self._hinted(kwargs))

    def _astream(self, *args: Any, **kwargs: Any) -> Any:
        return super()._astream(*args, **self._hinted(kwargs))

    def _hinted(self, kwargs: dict[str, Any]) -> dict[str, Any]:
        told = HINTS.get().told()
        if not told:
            return kwargs
        body = {**(self.extra_body or {}), **(kwargs.get("extra_body") or {})}
        return {**kwargs, "extra_body": {**body, PARROT: {**told, **(body.get(PARROT) or {})}}}

    def _create_chat_result(self, response: Any, generation_info: dict[str, Any] | None = None) -> ChatResult:
        result = super()._create_chat_result(response, generation_info)
        choices = _field(response, "choices") or ()
        for generation, choice in zip(result.generations, choices, strict=True):
            _keep(generation.message, _field(_field(choice, "message"), REASONING), _field(response, PARROT))
        return result

    def _convert_chunk_to_generation_chunk(
        self, chunk: dict[str, Any], default_chunk_class: type, base_generation_info: dict[str, Any] | None
    ) -> ChatGenerationChunk | None:
        generation = super()._convert_chunk_to_generation_chunk(chunk, default_chunk_class, base_generation_info)
        if generation is not None:
            told = chunk.get("chunk") or chunk  # the former where the client parses a stream
            delta = choices[0].get("delta") if (choices := told.get("choices")) else None
            _keep(generation.message, (delta or {}).get(REASONING), told.get(PARROT))
        return generation

    def get_token_ids(self, text: str) -> list[int]:
        if self.custom_get_token_ids is None:
            tokens = count_tokens(self.root_client, model=self.model_name, prompt=text)
            if tokens is not None:
                return tokens
        return super().get_token_ids(text)

    def get_num_tokens_from_messages(self, messages: Sequence[BaseMessage], tools: Any = None, **options: Any) -> int:
        """Of the prompt that the model's chat template makes of `messages`, with what opens its answer."""
        body = self._get_request_payload(list(messages))["messages"]
        tokens = count_tokens(self.root_client, model=self.model_name, messages=body) if tools is None else None
        if tokens is not None:
            return len(tokens)
        return super().get_num_tokens_from_messages(messages, tools, **options)


def _field(value: Any, name: str) -> Any:
    """Of an OpenAI response, which is a dict or an object that has every field as an attribute."""
    return value.get(name) if isinstance(value, Mapping) else getattr(value, name, None)


def _keep(message: BaseMessage, reasoning: Any, parrot: Any) -> None:
    if isinstance(message, AIMessage):
        if reasoning:
            message.additional_kwargs[REASONING] = reasoning
        if isinstance(parrot, dict):
            message.response_metadata[PARROT] = parrot
