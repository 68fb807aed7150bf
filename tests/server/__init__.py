"""Tests of the role `server`."""
