"""The tasks that wait, in the order in which they should go.

Within a tenant: higher priority, then urgent deadlines, then latency before the rest, then the latest start first
(so the critical path goes first), then first come. Between tenants: the one that was served least for its weight.
A task that has waited for the policy's patience goes before all that came after it, whoever's it is.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush

from semantic_parrot.core.scheduling.task import Policy, Task

#: (priority first, the latest start, ticket, task)
Entry = tuple[int, float, int, Task]


class _Heap:
    """A heap whose tasks may leave in the meantime; those are dropped as they surface, or when they are the most."""

    def __init__(self) -> None:
        self._entries: list[Entry] = []
        self.live = 0

    def push(self, entry: Entry) -> None:
        heappush(self._entries, entry)
        self.live += 1
        if len(self._entries) > 2 * self.live + 64:
            self._entries = [entry for entry in self._entries if entry[3].state == "waiting"]
            heapify(self._entries)

    def top(self) -> Entry | None:
        while self._entries:
            if self._entries[0][3].state == "waiting":
                return self._entries[0]
            heappop(self._entries)
        return None


@dataclass(slots=True, eq=False)
class _Tenant:
    """`served`: virtual time, tokens by weight. A deadline task is in `batch` and in `dated`."""

    served: float = 0.0
    waiting: int = 0
    weight: float = 1.0
    latency: _Heap = field(default_factory=_Heap)
    batch: _Heap = field(default_factory=_Heap)
    dated: _Heap = field(default_factory=_Heap)

    def heaps(self, task: Task) -> tuple[_Heap, ...]:
        if task.objective == "latency":
            return (self.latency,)
        return (self.batch, self.dated) if task.objective == "deadline" else (self.batch,)


class Waiting:
    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._tenants: dict[str, _Tenant] = {}
        self._busy: dict[int, _Tenant] = {}  # those with waiting tasks
        self._oldest: OrderedDict[int, Task] = OrderedDict()
        self._together: dict[Hashable, OrderedDict[int, Task]] = {}
        self._virtual = 0.0
        self.batch = 0  # waiting tasks that a latency call's cap keeps out

    def __len__(self) -> int:
        return len(self._oldest)

    def tasks(self) -> list[Task]:
        """In the order in which they came."""
        return list(self._oldest.values())

    def weigh(self, tenant: str, weight: float) -> None:
        self._tenants.setdefault(tenant, _Tenant()).weight = weight

    def _tenant(self, task: Task) -> _Tenant:
        return self._tenants.setdefault(task.tenant if self._policy.on("fair-share") else "", _Tenant())

    def push(self, task: Task) -> None:
        tenant = self._tenant(task)
        if not tenant.waiting:
            tenant.served = max(tenant.served, self._virtual)  # who comes back has no claim on the time it was away
            self._busy[id(tenant)] = tenant
        tenant.waiting += 1
        self._oldest[task.ticket] = task
        self._enter(task, tenant)

    def remove(self, task: Task) -> None:
        """`task` waits no longer: its state says so already."""
        tenant = self._tenant(task)
        tenant.waiting -= 1
        if not tenant.waiting:
            del self._busy[id(tenant)]
        del self._oldest[task.ticket]
        self._leave(task, tenant)

    def promote(self, task: Task) -> None:
        """Somebody else waits for the same answer, with a latency objective. Its old entries can do no harm."""
        tenant = self._tenant(task)
        self._leave(task, tenant)
        task.objective = "latency"
        self._enter(task, tenant)

    def _enter(self, task: Task, tenant: _Tenant) -> None:
        self.batch += task.waits
        for key in self._keys(task):
            self._together.setdefault(key, OrderedDict())[task.ticket] = task
        latest = task.latest if self._policy.on("critical-path") else 0.0
        for heap in tenant.heaps(task):
            first = self._urgent_from(task) if heap is tenant.dated else latest
            heap.push((-task.priority, first, task.ticket, task))

    def _leave(self, task: Task, tenant: _Tenant) -> None:
        self.batch -= task.waits
        for heap in tenant.heaps(task):
            heap.live -= 1
        for key in self._keys(task):
            del self._together[key][task.ticket]
            if not self._together[key]:
                del self._together[key]

    def served(self, task: Task, tokens: float, *, starts: bool = False) -> None:
        """Charge the task's tenant. `starts`: it is being dispatched, so virtual time is where its tenant stands."""
        tenant = self._tenant(task)
        if starts:
            self._virtual = max(self._virtual, tenant.served)
        tenant.served += tokens / tenant.weight

    def _urgent_from(self, task: Task) -> float:
        return task.latest - self._policy.urgency * task.seconds

    def presses(self, task: Task, now: float) -> bool:
        """Whether no cap may keep `task` waiting any longer: it waited its patience out, or its deadline is near."""
        late = task.objective == "deadline" and self._urgent_from(task) <= now
        return late or now - task.arrived >= self._policy.patience

    def head(self, now: float, *, roomy: bool) -> Task | None:
        """Who goes first. `roomy`: whether any engine takes one that a cap keeps out of the others."""
        oldest = next(iter(self._oldest.values()), None)
        if oldest is None or now - oldest.arrived >= self._policy.patience:
            return oldest
        best: tuple[float, int, Task] | None = None
        for tenant in self._busy.values():
            task = self._first(tenant, now, roomy)
            if task is not None:
                rank = (tenant.served, task.ticket, task)
                best = rank if best is None else min(best, rank)
        return best[2] if best else None

    def _first(self, tenant: _Tenant, now: float, roomy: bool) -> Task | None:
        dated, latency, batch = tenant.dated.top(), tenant.latency.top(), tenant.batch.top()
        ranked: list[tuple[int, int, Entry]] = []
        if dated is not None and dated[1] <= now:
            ranked.append((dated[0], 0, dated))
        if latency is not None:
            ranked.append((latency[0], 1, latency))
        if batch is not None and roomy:
            ranked.append((batch[0], 2, batch))
        return min(ranked)[2][3] if ranked else None

    def together(self, task: Task) -> Iterator[tuple[Task, str]]:
        """`task`, then who should be placed with it: its queued group, or else the queued sharers of its longest shared
        prefix (paper, Algorithm 1). All of one tenant, objective and priority; at most those waiting now."""
        yield task, ""
        for key, why in self._units(task):
            others = self._together.get(key)
            if others:
                ticket = 0
                while others and (ticket := next(iter(others), 0)):
                    yield others[ticket], why
                    if ticket in others:  # it was not taken
                        return
                return

    def _units(self, task: Task) -> Iterator[tuple[Hashable, str]]:
        keys = self._keys(task)
        if task.group is not None and self._policy.on("task-groups"):
            yield keys[0], "task-group"
            keys = keys[1:]
        for key in reversed(keys):
            yield key, "queued-sharers"

    def _keys(self, task: Task) -> list[Hashable]:
        cohort = (task.tenant, task.objective, task.priority)
        keys: list[Hashable] = []
        if task.group is not None and self._policy.on("task-groups"):
            keys.append(("group", task.group, *cohort))
        if self._policy.on("prefix-placement"):
            keys.extend((prefix, *cohort) for prefix in task.prefixes)
        return keys
