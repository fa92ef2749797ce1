"""Semantic Kernel on Parrot: swap the service class, and prompts that call prompts run as one program.

    from semantic_parrot.adapters.semantic_kernel import ParrotChatCompletion
    kernel.add_service(ParrotChatCompletion(attach_to=kernel))

`explain(kernel, function, arguments)` shows what becomes of a function, `stats()` what planning has saved, `disabled()`
turns it off for a block, `detach(kernel)` takes the filters out. `deferred(kernel)` is a block whose invocations run
together; `lower(kernel, plan)` runs those of a list.
PARROT_DISABLE=1 turns planning off, PARROT_DEBUG=1 raises the planner's own errors.
"""

from semantic_parrot.adapters.semantic_kernel.chat import ParrotChatCompletion
from semantic_parrot.adapters.semantic_kernel.control import attach, detach, disabled, stats
from semantic_parrot.adapters.semantic_kernel.deferred import deferred
from semantic_parrot.adapters.semantic_kernel.explain import explain
from semantic_parrot.adapters.semantic_kernel.pending import PendingResult
from semantic_parrot.adapters.semantic_kernel.settings import (
    ParrotChatPromptExecutionSettings,
    ParrotTextPromptExecutionSettings,
)
from semantic_parrot.adapters.semantic_kernel.steps import Plan, lower
from semantic_parrot.adapters.semantic_kernel.text import ParrotTextCompletion
from semantic_parrot.adapters.stats import Stats

__all__ = [
    "ParrotChatCompletion",
    "ParrotChatPromptExecutionSettings",
    "ParrotTextCompletion",
    "ParrotTextPromptExecutionSettings",
    "PendingResult",
    "Plan",
    "Stats",
    "attach",
    "deferred",
    "detach",
    "disabled",
    "explain",
    "lower",
    "stats",
]
