"""What planning makes of an app, and why not more: a tree of its pieces, as text, graph or page. Of no framework."""

from semantic_parrot.adapters.explanation.needs import producers
from semantic_parrot.adapters.explanation.prefixes import shared_prefixes
from semantic_parrot.adapters.explanation.tree import Explanation, Piece, Shared, Source

__all__ = ["Explanation", "Piece", "Shared", "Source", "producers", "shared_prefixes"]
