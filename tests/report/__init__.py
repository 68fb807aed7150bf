"""Tests of services/report."""
