"""The tasks that wait, in the order in which they should go.

Between tenants: the one that was served least for its weight. Within a tenant: its oldest task, once none that was the
oldest has gone for the policy's patience; then higher priority, urgent deadlines, latency before the rest, the latest
start first (so the critical path goes first), first come. So each tenant's oldest goes at least once in that time, and
who came after k others of a tenant waits k + 1 times the patience at most, as long as there is room and the tenant has
its turn. (Patience by age alone would make all of a backlog urgent, and no cap would hold.)
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from math import inf

from semantic_parrot.core.scheduling.heap import Entry, Heap
from semantic_parrot.core.scheduling.task import Policy, Task


@dataclass(slots=True, eq=False)
class _Tenant:
    """`served`: virtual time, tokens by weight. `tasks`: those that wait, oldest first; `relieved`: when one that was
    the oldest went. A deadline task is in `batch` and in `dated`."""

    served: float = 0.0
    tasks: OrderedDict[int, Task] = field(default_factory=OrderedDict)
    relieved: float = -inf
    weight: float = 1.0
    seconds: float = 0.0
    latency: Heap = field(default_factory=Heap)
    batch: Heap = field(default_factory=Heap)
    dated: Heap = field(default_factory=Heap)

    def heaps(self, task: Task) -> tuple[Heap, ...]:
        if task.objective == "latency":
            return (self.latency,)
        return (self.batch, self.dated) if task.objective == "deadline" else (self.batch,)


class Waiting:
    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._fair = policy.on("fair-share")
        self._tenants: dict[str, _Tenant] = {}
        self._busy: dict[int, _Tenant] = {}  # those with waiting tasks
        self._tasks: dict[int, Task] = {}
        self._together: dict[Hashable, OrderedDict[int, Task]] = {}
        self._virtual = 0.0
        self.seconds = 0.0  # that all who wait take on an idle engine
        self.batch = 0  # waiting tasks that a latency call's cap keeps out

    def __len__(self) -> int:
        return len(self._tasks)

    def tasks(self) -> list[Task]:
        """In the order in which they came."""
        return list(self._tasks.values())

    def queue(self, tenant: str) -> tuple[int, float, float]:
        """(tasks of the tenant that wait, seconds that they take on an idle engine, the tenant's share of the engines
        among those that wait)."""
        own = self._tenants.get(tenant if self._fair else "") or _Tenant()
        weights = sum(other.weight for other in self._busy.values() if other is not own)
        return len(own.tasks), own.seconds, own.weight / (own.weight + weights)

    def weigh(self, tenant: str, weight: float) -> None:
        self._named(tenant).weight = weight

    def standing(self, tenant: str) -> float:
        """The tenant's virtual time: tokens it was served, by its weight. Who has least goes first."""
        return self._named(tenant if self._fair else "").served

    def _tenant(self, task: Task) -> _Tenant:
        return self._named(task.tenant if self._fair else "")

    def _named(self, name: str) -> _Tenant:
        found = self._tenants.get(name)
        if found is None:
            found = self._tenants[name] = _Tenant(weight=self._policy.weights.get(name, self._policy.weight))
        return found

    def push(self, task: Task) -> None:
        tenant = self._tenant(task)
        if not tenant.tasks:
            tenant.served = max(tenant.served, self._virtual)  # who comes back has no claim on the time it was away
            self._busy[id(tenant)] = tenant
        self._tasks[task.ticket] = tenant.tasks[task.ticket] = task
        self._count(task, tenant, task.seconds)
        self._enter(task, tenant)

    def remove(self, task: Task) -> None:
        """`task` waits no longer: its state says so already."""
        tenant = self._tenant(task)
        del self._tasks[task.ticket], tenant.tasks[task.ticket]
        self._count(task, tenant, -task.seconds)
        if not tenant.tasks:
            del self._busy[id(tenant)]
            tenant.seconds = 0.0  # sums of many small parts, each of them rounded
        if not self._tasks:
            self.seconds = 0.0
        self._leave(task, tenant)

    def _count(self, task: Task, tenant: _Tenant, seconds: float) -> None:
        tenant.seconds += seconds
        self.seconds += seconds

    def place(self, task: Task, now: float) -> None:
        """`task` goes to an engine: its state says so already."""
        tenant = self._tenant(task)
        if self._oldest(tenant) is task:
            tenant.relieved = now
        self.remove(task)

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
        """Whether no cap may keep `task` waiting any longer: it is its tenant's oldest and out of patience, its
        deadline is near, or its tenant is owed too much."""
        late = task.objective == "deadline" and self._urgent_from(task) <= now
        tenant = self._tenant(task)
        return late or self._owed(tenant) or (self._oldest(tenant) is task and self._overdue(tenant, now))

    @staticmethod
    def _oldest(tenant: _Tenant) -> Task:
        return next(iter(tenant.tasks.values()))

    def _overdue(self, tenant: _Tenant, now: float) -> bool:
        return now - max(self._oldest(tenant).arrived, tenant.relieved) >= self._policy.patience

    def _owed(self, tenant: _Tenant) -> bool:
        """Else tenants whose calls are for latency would have it all, with their caps."""
        return self._virtual - tenant.served > self._policy.lag

    def head(self, now: float, *, roomy: bool) -> Task | None:
        """Who goes first. `roomy`: whether any engine takes one that a cap keeps out of the others."""
        best: tuple[float, int, Task] | None = None
        for tenant in self._busy.values():
            task = self._first(tenant, now, roomy)
            if task is not None:
                rank = (tenant.served, task.ticket, task)
                best = rank if best is None else min(best, rank)
        return best[2] if best else None

    def _first(self, tenant: _Tenant, now: float, roomy: bool) -> Task | None:
        if self._overdue(tenant, now):
            return self._oldest(tenant)
        dated, latency, batch = tenant.dated.top(), tenant.latency.top(), tenant.batch.top()
        ranked: list[tuple[int, int, Entry]] = []
        if dated is not None and dated[1] <= now:
            ranked.append((dated[0], 0, dated))
        if latency is not None:
            ranked.append((latency[0], 1, latency))
        if batch is not None and (roomy or self._owed(tenant)):
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
            # An empty value makes two equal prefixes.
            keys.extend((prefix, *cohort) for prefix in dict.fromkeys(task.prefixes))
        return keys
