"""Semantic Kernel on Parrot: swap the service class, and prompts that call prompts run as one program.

    from semantic_parrot.adapters.semantic_kernel import ParrotChatCompletion
    kernel.add_service(ParrotChatCompletion(attach_to=kernel))

`stats()` shows what planning has saved, `disabled()` turns it off for a block, `detach(kernel)` takes the filters out.
PARROT_DISABLE=1 turns planning off, PARROT_DEBUG=1 raises the planner's own errors.
"""

from semantic_parrot.adapters.semantic_kernel.chat import ParrotChatCompletion
from semantic_parrot.adapters.semantic_kernel.control import attach, detach, disabled, stats
from semantic_parrot.adapters.semantic_kernel.settings import (
    ParrotChatPromptExecutionSettings,
    ParrotTextPromptExecutionSettings,
)
from semantic_parrot.adapters.semantic_kernel.text import ParrotTextCompletion
from semantic_parrot.adapters.stats import Stats

__all__ = [
    "ParrotChatCompletion",
    "ParrotChatPromptExecutionSettings",
    "ParrotTextCompletion",
    "ParrotTextPromptExecutionSettings",
    "Stats",
    "attach",
    "detach",
    "disabled",
    "stats",
]
