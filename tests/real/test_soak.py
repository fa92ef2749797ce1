"""A short soak (make soak: a hundred kills): a real server, real sockets, SIGKILL at random moments."""

from __future__ import annotations

import pytest
from postgres import cluster
from soak import soak

KILLS, OPEN = 5, 200


def check(report):
    assert report.problems == []
    assert report.kills == KILLS
    assert min(report.open_at_kill) >= OPEN
    assert report.accepted == report.finished >= OPEN
    assert report.executions > report.calls > report.accepted  # some calls were cut off, and ran again


@pytest.mark.timeout(900)
async def test_every_accepted_run_ends_once_though_its_server_is_killed():
    check(await soak(KILLS, open_runs=OPEN))


@pytest.mark.timeout(900)
async def test_so_it_is_on_postgresql():
    with cluster() as postgres:
        check(await soak(KILLS, open_runs=OPEN, journal=postgres.url))
