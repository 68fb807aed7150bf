"""Tests of the role `init`."""
