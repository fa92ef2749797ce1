"""What the core deduces of programs before and while they run."""

from semantic_parrot.core.analysis.lengths import Lengths
from semantic_parrot.core.analysis.next_uses import NextUses
from semantic_parrot.core.analysis.pieces import Skeleton, boundaries, skeleton
from semantic_parrot.core.analysis.prefixes import PrefixUses
from semantic_parrot.core.analysis.step import Class, Group, Planned, Step
from semantic_parrot.core.analysis.steps import Analysis

__all__ = [
    "Analysis",
    "Class",
    "Group",
    "Lengths",
    "NextUses",
    "Planned",
    "PrefixUses",
    "Skeleton",
    "Step",
    "boundaries",
    "skeleton",
]
