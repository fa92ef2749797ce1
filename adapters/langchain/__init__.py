"""LangChain on Parrot: swap the model class, and the chains around it run as programs.

    from semantic_parrot.adapters.langchain import ChatParrot

`ParrotLLM` is the same for completion models, whose calls are not planned.

`explain(chain, input)` shows what becomes of a chain, `stats()` what planning has saved, `disabled()` turns it off for
a block, `uninstall()` takes the hooks out of LangChain. PARROT_DISABLE=1 turns planning off, PARROT_DEBUG=1 raises the
planner's own errors.
"""

from semantic_parrot.adapters.explanation import Explanation
from semantic_parrot.adapters.langchain.chat import ChatParrot
from semantic_parrot.adapters.langchain.control import disabled, install, stats, uninstall
from semantic_parrot.adapters.langchain.explain import explain
from semantic_parrot.adapters.langchain.llm import ParrotLLM
from semantic_parrot.adapters.stats import Stats

__all__ = ["ChatParrot", "Explanation", "ParrotLLM", "Stats", "disabled", "explain", "install", "stats", "uninstall"]
