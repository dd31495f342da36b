"""Moments as the site's clocks show them; everything inside, and what programs get, stays in UTC."""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo


class Times:
    """Turns moments into local times of one zone, whose name the page says once."""

    def __init__(self, zone: str | None) -> None:
        """zone: a name of the tz database; None is the machine's own zone."""
        self._zone = ZoneInfo(zone) if zone else None

    def shown(self, moment: datetime) -> str:
        """The moment on the site's clock, to the second."""
        return moment.astimezone(self._zone).strftime("%Y-%m-%d %H:%M:%S")

    def zone(self, now: datetime) -> str:
        """What the clock is called, and how far it is ahead of UTC: "Africa/Nairobi, UTC+03:00"."""
        there = now.astimezone(self._zone)
        name = self._zone.key if self._zone else there.strftime("%Z")
        return f"{name}, UTC{there.isoformat()[-6:]}" if there.utcoffset() else "UTC"
