"""The lowering of a chain that stands in a module of the app."""

from __future__ import annotations

import json
import sys
from importlib import import_module
from typing import Any

from semantic_parrot.adapters.explanation import Explanation


class Refused(Exception):
    """One line for the user."""


def explain_chain(name: str, given: str) -> Explanation:
    """Of `name` (module:attribute), run on `given` (JSON). Imports the module as a program would; runs no chain."""
    try:
        value = json.loads(given)
    except ValueError as error:
        raise Refused(f"--input is no JSON: {error}") from None
    try:
        from langchain_core.runnables import Runnable

        from semantic_parrot.adapters.langchain import explain
    except ModuleNotFoundError as error:
        raise Refused(f"a chain needs {error.name}: pip install 'semantic-parrot[langchain]'") from None
    chain = _load(*name.split(":"))
    if not isinstance(chain, Runnable):
        raise Refused(f"{name} is a {type(chain).__name__}, and no chain of LangChain")
    return explain(chain, value)


def _load(module: str, attribute: str) -> Any:
    sys.path.insert(0, "")  # the directory that the command was called in
    try:
        return getattr(import_module(module), attribute)
    except AttributeError:
        raise Refused(f"{module} has no {attribute}") from None
    except Exception as error:  # of the app's own code, whatever it is
        raise Refused(f"{module} can't be imported: {type(error).__name__}: {error}") from error
    finally:
        sys.path.remove("")
