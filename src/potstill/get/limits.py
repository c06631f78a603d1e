"""How many requests a server gets, how fast, and how much is downloaded from it."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """Limits of the downloader."""

    connections: int = 64
    """Requests under way at once, all servers together."""
    per_host: int = 8
    """Requests under way at once to one server that HOSTS does not name."""
    tries: int = 5
    """Tries per photo when a server fails or a connection breaks."""
    backoff_seconds: float = 0.5
    """The wait before try n + 1 is drawn from 0 to this many seconds times 2ⁿ."""
    backoff_cap_seconds: float = 60.0
    """The longest such wait."""
    retry_after_cap_seconds: float = 900.0
    """The longest wait that a server may ask for by Retry-After; above it the server gets no more requests."""
    failures_to_park: int = 20
    """After this many photos in a row that a server failed to send, it gets no more requests in this run."""
    connect_seconds: float = 10.0
    """To make a connection."""
    read_seconds: float = 30.0
    """The longest silence."""
    photo_seconds: float = 120.0
    """For one photo, from the first byte sent to the last received."""
    min_bytes_per_second: int = 1000
    """A photo that arrives more slowly, over `read_seconds`, is given up."""
    max_bytes: int = 25 * 2**20
    """Bytes of one photo, counted as they arrive and after decompression."""
    max_redirects: int = 5
    """Redirects per photo."""


@dataclass(frozen=True, kw_only=True, slots=True)
class HostRule:
    """What one server allows."""

    concurrency: int
    """Requests at once."""
    interval_seconds: float = 0.0
    """Least time between the starts of two requests."""
    bytes_per_second: float = 0.0
    """Most bytes per second; 0: no limit."""


HOSTS: dict[str, HostRule] = {
    "staticflickr.com": HostRule(concurrency=8),
    "s3.amazonaws.com": HostRule(concurrency=16),
    "storage.googleapis.com": HostRule(concurrency=16),
    # Wikimedia: at most 2 files at once and 25 Mbit/s, API calls one after another (wikitech-l, April 2025).
    "upload.wikimedia.org": HostRule(concurrency=2, bytes_per_second=25e6 / 8),
    "thumb.wikimedia.org": HostRule(concurrency=2, bytes_per_second=25e6 / 8),
    "commons.wikimedia.org": HostRule(concurrency=1, interval_seconds=0.35),
    "www.wikidata.org": HostRule(concurrency=1, interval_seconds=0.35),
    "api.inaturalist.org": HostRule(concurrency=1, interval_seconds=1.0),
    "huggingface.co": HostRule(concurrency=8),
    "datasets-server.huggingface.co": HostRule(concurrency=2, interval_seconds=0.6),  # 500 calls in 5 minutes
}
"""By the end of the host name, so that `inaturalist-open-data.s3.amazonaws.com` falls under `s3.amazonaws.com`."""


def rule_for(host: str, limits: Limits) -> HostRule:
    """The rule of a host: the longest matching end of its name in HOSTS, else `limits.per_host`."""
    parts = host.lower().rstrip(".").split(".")
    for start in range(len(parts)):
        if rule := HOSTS.get(".".join(parts[start:])):
            return rule
    return HostRule(concurrency=limits.per_host)
