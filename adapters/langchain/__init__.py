"""LangChain on Parrot: swap the model class, and the chains around it run as programs.

from semantic_parrot.adapters.langchain import ChatParrot
"""

from semantic_parrot.adapters.langchain.chat import ChatParrot

__all__ = ["ChatParrot"]
