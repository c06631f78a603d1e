"""Rate limits per server: how many requests at once, how far apart, how fast, and when to give the server up."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

from potstill.get.limits import HostRule, Limits, rule_for


class Host:
    """The state of one server during one run."""

    def __init__(self, name: str, rule: HostRule, limits: Limits) -> None:
        self.name = name
        self.rule = rule
        self.parked: str | None = None
        """Why this server gets no more requests in this run."""
        self._limits = limits
        self._slots = asyncio.Semaphore(rule.concurrency)
        self._next_start = 0.0
        self._next_byte = 0.0
        self._failures = 0
        self._rest_seconds = 0.0

    @contextlib.asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for a free slot, the interval between requests, and for the end of a pause that the server requested."""
        async with self._slots:
            while (wait := self._next_start - time.monotonic()) > 0:
                await asyncio.sleep(wait)
            if self.rule.interval_seconds:
                self._next_start = time.monotonic() + self.rule.interval_seconds
            yield

    def pause(self, seconds: float) -> None:
        """No request starts before this many seconds have passed."""
        self._next_start = max(self._next_start, time.monotonic() + seconds)

    def rest(self) -> None:
        """Pause after a "too many requests" that names no time: ten first waits (5 s by default), then twice that."""
        first = 10 * self._limits.backoff_seconds
        self._rest_seconds = min(max(first, 2 * self._rest_seconds), self._limits.retry_after_cap_seconds)
        self.pause(self._rest_seconds)

    async def pace(self, size: int) -> None:
        """Wait long enough that the server sends, in total no more bytes per second than its rule allows."""
        if not self.rule.bytes_per_second:
            return
        now = time.monotonic()
        self._next_byte = max(self._next_byte, now) + size / self.rule.bytes_per_second
        if self._next_byte - now > 0.25:  # a quarter of a second may come as a burst
            await asyncio.sleep(self._next_byte - now - 0.25)

    def succeeded(self) -> None:
        """The server works: it sent a photo, or refused it clearly."""
        self._failures = 0
        self._rest_seconds = 0.0

    def failed(self, reason: str) -> None:
        """A photo was given up after all its tries."""
        self._failures += 1
        if self._failures >= self._limits.failures_to_park:
            self.park(f"{self._failures} failures in a row, the last: {reason}")

    def park(self, reason: str) -> None:
        """Send the server no more requests in this run."""
        self.parked = self.parked or reason


class Hosts(dict[str, Host]):
    """The servers met so far, by `host:port`."""

    def __init__(self, limits: Limits) -> None:
        super().__init__()
        self._limits = limits

    def __missing__(self, key: str) -> Host:
        host = Host(key, rule_for(key.rpartition(":")[0], self._limits), self._limits)
        self[key] = host
        return host

    def parked(self) -> dict[str, str]:
        """Why, by server."""
        return {name: host.parked for name, host in self.items() if host.parked}
