"""Tests of the role `client`."""
