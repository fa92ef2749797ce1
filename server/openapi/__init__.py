"""What /openapi.json says: the routes as they are, with the schemas by which bodies are checked."""

from semantic_parrot.server.openapi.describe import describe

__all__ = ["describe"]
