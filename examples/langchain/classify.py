"""A batch of entries, each classified as JSON of a fixed shape. Over more than a few inputs it is for throughput.

python examples/langchain/classify.py       # against `parrot serve` (make serve)
"""

from __future__ import annotations

import json
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.output_parsers import JsonOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import Runnable

EXTRACT = "Extract the entry as JSON:\n{text}"
KEYS = {"vessel": "string", "type": "string", "event": "string", "time": "string", "berth": "integer"}
KEYS |= {"tonnes": "integer", "goods": "string", "master": "string"}
SCHEMA = {
    "type": "object",
    "properties": {key: {"type": kind} for key, kind in KEYS.items()} | {"event": {"enum": ["arrival", "departure"]}},
    "required": list(KEYS),
    "additionalProperties": False,
}


def classifier(llm: BaseChatModel) -> Runnable[Any, dict[str, Any]]:
    """{"text": entry} -> its fields, of SCHEMA whatever the model would rather write."""
    shape = {"type": "json_schema", "json_schema": {"name": "entry", "schema": SCHEMA, "strict": True}}
    return ChatPromptTemplate.from_template(EXTRACT) | llm.bind(response_format=shape) | JsonOutputParser()


def main() -> None:
    from semantic_parrot.adapters.langchain import ChatParrot
    from semantic_parrot.core.demo_model import world

    chain = classifier(ChatParrot(temperature=0, max_tokens=200))
    for found in chain.batch([{"text": text} for text in world.day(seed=7, n=8).split("\n\n")]):
        print(json.dumps(found))


if __name__ == "__main__":
    main()
