"""The fixed control flow of `langchain_classic`: what its document chains are going to do with their documents.

These chains are code and no composition of runnables, but code that is known: each planner says what its chain's
`combine_docs` does. Nothing of langchain_classic is imported; the classes are known by their names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from langchain_core.output_parsers import StrOutputParser

from semantic_parrot.adapters.langchain.lower import Lowering
from semantic_parrot.adapters.langchain.values import Cut, Fields, Known, Text, Value, joined, lift, string, text_of
from semantic_parrot.adapters.marks import Part

if TYPE_CHECKING:
    from langchain_core.prompts import PromptTemplate

#: In newer versions langchain_classic, before that langchain.
ROOTS = ("langchain_classic", "langchain")

Planner = Callable[[Lowering, Any, Sequence[Any], Mapping[str, Any]], None]


def _is(found: object, module: str, name: str) -> bool:
    kind = type(found)
    return kind.__name__ == name and kind.__module__ in [f"{root}.chains.{module}" for root in ROOTS]


def refine(low: Lowering, chain: Any, documents: Sequence[Any], inputs: Mapping[str, Any]) -> None:
    """RefineDocumentsChain: each document changes what was made of those before it."""
    more = {name: lift(value) for name, value in inputs.items()}
    made: Value | None = None
    for document in documents:
        given: dict[str, Value] = {chain.document_variable_name: _formatted(low, document, chain.document_prompt)}
        if made is None:
            made = _called(low, chain.initial_llm_chain, {**given, **more})
        else:
            made = _called(low, chain.refine_llm_chain, {**given, chain.initial_response_name: made, **more})


def map_reduce(low: Lowering, chain: Any, documents: Sequence[Any], inputs: Mapping[str, Any]) -> None:
    """MapReduceDocumentsChain: a call for each document, and one for all their answers, unless these are too long."""
    more = {name: lift(value) for name, value in inputs.items()}
    name = chain.document_variable_name
    made = [_called(low, chain.llm_chain, {name: Known(doc.page_content), **more}) for doc in documents]
    stuff = chain.reduce_documents_chain
    if _is(stuff, "combine_documents.reduce", "ReduceDocumentsChain"):
        stuff = stuff.combine_documents_chain
    if not _is(stuff, "combine_documents.stuff", "StuffDocumentsChain"):
        raise Cut(f"{type(stuff).__name__} is not lowered")
    parts: list[Part] = []
    for i, (document, answer) in enumerate(zip(documents, made, strict=True)):
        shown = _formatted(low, document, stuff.document_prompt, answer)
        parts += [*([stuff.document_separator] if i else []), *string(shown)]
    _called(low, stuff.llm_chain, {**more, stuff.document_variable_name: joined(parts)})


def _formatted(low: Lowering, document: Any, prompt: Any, content: Value | None = None) -> Value:
    """What `format_document` makes of `document`, or of one with the same metadata and `content`."""
    from langchain_core.prompts import PromptTemplate

    if type(prompt) is not PromptTemplate:
        raise Cut(f"documents are formatted by a {type(prompt).__name__}")
    known = {"page_content": content or Known(document.page_content)}
    known |= {name: lift(value) for name, value in document.metadata.items()}
    return _filled(low, prompt, known)


def _filled(low: Lowering, prompt: PromptTemplate, values: Mapping[str, Value]) -> Text:
    from semantic_parrot.adapters.langchain import prompts

    (message,) = prompts.string_prompt(prompt, _selected(prompt, values), low.plan.marks).messages
    return Text(low.plan.marks.read(str(message.content)))


def _selected(prompt: Any, values: Mapping[str, Value]) -> Fields:
    missing = [name for name in prompt.input_variables if name not in values]
    if missing:
        raise Cut(f"the prompt's variable {missing[0]!r} is missing")
    return Fields({name: values[name] for name in prompt.input_variables})


def _called(low: Lowering, chain: Any, values: Mapping[str, Value]) -> Value:
    """The text that an LLMChain makes."""
    if not _is(chain, "llm", "LLMChain"):
        raise Cut(f"{type(chain).__name__} is not lowered")
    if chain.memory is not None or type(chain.output_parser) is not StrOutputParser or "stop" in values:
        raise Cut("its LLMChain has a memory, a parser or stop words of the app")
    prompt = low.lower(chain.prompt, _selected(chain.prompt, values), {})
    return joined(text_of(low.at((chain, "llm"), chain.llm, prompt, chain.llm_kwargs)))


#: (module, class) below one of the ROOTS, and its planner.
PLANNERS: dict[tuple[str, str], Planner] = {
    ("chains.combine_documents.refine", "RefineDocumentsChain"): refine,
    ("chains.combine_documents.map_reduce", "MapReduceDocumentsChain"): map_reduce,
}
