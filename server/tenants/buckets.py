"""A rate: so many a minute, of which a minute's worth may come at once."""

from __future__ import annotations


class Bucket:
    """It may be overdrawn by what is known only afterwards. Times in seconds, on any clock that does not go back."""

    def __init__(self, per_minute: float, now: float) -> None:
        self._most = float(per_minute)
        self._rate = per_minute / 60
        self._level = self._most
        self._at = now

    def wait(self, now: float, least: float) -> float:
        """Seconds until `least` is there; 0: it is."""
        self._fill(now)
        return max(0.0, (least - self._level) / self._rate)

    def take(self, count: float, now: float) -> None:
        self._fill(now)
        self._level -= count

    def _fill(self, now: float) -> None:
        self._level = min(self._most, self._level + (now - self._at) * self._rate)
        self._at = now
