"""The journal's tables, their version, and the steps from one version to the next.

The steps are a table of functions: with three tables, a tool for migrations would be more to install, to configure and
to read than what it does here. A journal that is new is made as it is now; an older one takes the steps that it lacks,
all of them in one transaction; a newer one is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import sqlalchemy as sa

METADATA = sa.MetaData()

RUNS = sa.Table(
    "parrot_runs",
    METADATA,
    sa.Column("id", sa.String, primary_key=True),
    sa.Column("tenant", sa.String, nullable=False),
    sa.Column("created", sa.Double, nullable=False),  # Unix time
    sa.Column("body", sa.Text, nullable=False),  # the program, as JSON
    sa.Column("status", sa.String),  # null as long as the run is open
    sa.Column("ended", sa.Double),
    sa.Index("parrot_runs_by_tenant", "tenant", "created"),
    sa.Index("parrot_runs_by_end", "ended"),
)

EVENTS = sa.Table(
    "parrot_events",
    METADATA,
    sa.Column("run", sa.String, primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("data", sa.Text, nullable=False),  # as it is sent: JSON in one line of ASCII
)

KEYS = sa.Table(
    "parrot_keys",
    METADATA,
    sa.Column("tenant", sa.String, primary_key=True),
    sa.Column("text", sa.String, primary_key=True),
    sa.Column("digest", sa.String, nullable=False),
    sa.Column("run", sa.String, nullable=False, index=True),
)

_META = sa.Table("parrot_journal", METADATA, sa.Column("version", sa.Integer, nullable=False))

Step = Callable[[sa.Connection], None]

VERSION = 1

#: By the version that a step starts from.
STEPS: Mapping[int, Step] = {}


class TooNew(Exception):
    """The journal was written by a later version of Parrot. The message is one line."""


def migrate(connection: sa.Connection, version: int = VERSION, steps: Mapping[int, Step] = STEPS) -> None:
    """Bring the journal to `version`; to be called in a transaction. Raises TooNew."""
    if not sa.inspect(connection).has_table(_META.name):
        METADATA.create_all(connection)
        connection.execute(_META.insert().values(version=version))
        return
    found = connection.execute(sa.select(_META.c.version)).scalar_one()
    if found > version:
        raise TooNew(f"its version is {found}, and this Parrot knows up to {version}: it was written by a newer one")
    for number in range(found, version):
        steps[number](connection)
    if found < version:
        connection.execute(_META.update().values(version=version))
