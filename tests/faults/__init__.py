"""Faults, by causing them on the real stack."""
