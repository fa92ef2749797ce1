"""Semantic Kernel on Parrot: swap the service class.

from semantic_parrot.adapters.semantic_kernel import ParrotChatCompletion
"""

from semantic_parrot.adapters.semantic_kernel.chat import ParrotChatCompletion
from semantic_parrot.adapters.semantic_kernel.settings import (
    ParrotChatPromptExecutionSettings,
    ParrotTextPromptExecutionSettings,
)
from semantic_parrot.adapters.semantic_kernel.text import ParrotTextCompletion

__all__ = [
    "ParrotChatCompletion",
    "ParrotChatPromptExecutionSettings",
    "ParrotTextCompletion",
    "ParrotTextPromptExecutionSettings",
]
