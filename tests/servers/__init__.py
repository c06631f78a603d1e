"""Servers on loopback that speak the real formats of photo sources, faults included."""
