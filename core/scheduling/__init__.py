"""The scheduler's decisions, as a pure core: no event loop, and time is passed in. The simulator runs the same code."""

from semantic_parrot.core.scheduling.decision import Decider
from semantic_parrot.core.scheduling.estimates import Estimates
from semantic_parrot.core.scheduling.task import OPTIMISATIONS, Placement, Policy, Task, Why

__all__ = ["OPTIMISATIONS", "Decider", "Estimates", "Placement", "Policy", "Task", "Why"]
