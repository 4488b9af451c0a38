"""Gradient flow, taken apart exactly: what the probes log in passing, and what takes seconds, on any network."""
