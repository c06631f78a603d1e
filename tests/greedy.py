"""Decoders that misbehave, in the process that decodes heavy photos: `python -m tests.greedy`."""

import ctypes
import sys

from potstill.images import guarded


def forever(data: bytes) -> guarded.Found:
    while True:
        pass


def memory(data: bytes) -> guarded.Found:
    return {"bytes": len(bytes(10**10))}, None


def crash(data: bytes) -> guarded.Found:
    ctypes.string_at(0)
    return {}, None


if __name__ == "__main__":
    guarded.WORK.update(forever=forever, memory=memory, crash=crash)
    sys.exit(guarded.main(*sys.argv[1:]))
