"""A journal in PostgreSQL: one server at a time, by a lock of the session that writes."""

from __future__ import annotations

from typing import Any

#: What Parrot's journal is called among the advisory locks of a database.
LOCK = 0x50617272_6F744A31

#: For which a server that takes over waits for the session of one that is gone.
PATIENCE = "5s"


def configure(connection: Any) -> None:
    """A new connection of psycopg's. Whoever lost the connection, and with it the lock, must have it again to write.
    Raises OperationalError if another server has it."""
    import psycopg

    with connection.cursor() as cursor:
        cursor.execute(f"SET lock_timeout = '{PATIENCE}'")
        try:
            cursor.execute(f"SELECT pg_advisory_lock({LOCK})")
        except psycopg.errors.LockNotAvailable:
            raise psycopg.OperationalError("it is in use by another server") from None
        cursor.execute("SET lock_timeout = 0")
    connection.commit()
