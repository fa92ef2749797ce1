"""What a tenant may have, as the configuration says it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import Field

from semantic_parrot.core.model import Value

Count = Annotated[int, Field(ge=1, le=10**15)]
Amount = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class TenantSection(Value):
    """None: no bound, or that of the defaults.

    `weight`: its share of the engines beside others', 1 for who says nothing. `requests_per_minute`,
    `tokens_per_minute`: prompt and completion, as engines report them; a minute's worth may come at once. `concurrent`:
    requests that are open at once. `queued`: its calls that wait for an engine. `quota_tokens`, `quota_cost`: in each
    `quota_period` of UTC.
    """

    weight: Amount | None = None
    requests_per_minute: Count | None = None
    tokens_per_minute: Count | None = None
    concurrent: Count | None = None
    queued: Count | None = None
    quota_tokens: Count | None = None
    quota_cost: Amount | None = None
    quota_period: Literal["day", "month"] | None = None

    def over(self, defaults: TenantSection) -> TenantSection:
        """What this says, and of what it does not say what `defaults` say."""
        return defaults.model_copy(update=self.model_dump(exclude_none=True))


class LimitsSection(Value):
    """`queued`: calls of all tenants that wait for an engine, beyond which nobody is let in. `max_body_mib`: of a
    request. `slow_seconds`: within which a client must have sent its request, or read something of its answer."""

    queued: Count = 10_000
    max_body_mib: Annotated[float, Field(gt=0, le=1024, allow_inf_nan=False)] = 32.0
    slow_seconds: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 60.0


@dataclass(frozen=True, slots=True)
class Terms:
    """Of all: `limits` of the server, `defaults` for tenants, and what `tenants` have by name."""

    limits: LimitsSection = field(default_factory=LimitsSection)
    defaults: TenantSection = field(default_factory=TenantSection)
    tenants: Mapping[str, TenantSection] = field(default_factory=dict)

    def of(self, tenant: str) -> TenantSection:
        own = self.tenants.get(tenant)
        return self.defaults if own is None else own.over(self.defaults)

    @property
    def weight(self) -> float:
        """Of a tenant that has none of its own."""
        return self.defaults.weight or 1.0

    @property
    def weights(self) -> dict[str, float]:
        return {name: one.weight for name, one in self.tenants.items() if one.weight is not None}
