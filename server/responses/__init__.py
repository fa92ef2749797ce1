"""OpenAI's Responses API, not stored: a chat completion in other shapes."""

from semantic_parrot.server.responses.routes import routes

__all__ = ["routes"]
