"""Tests mirror `services/`, one file a module."""
