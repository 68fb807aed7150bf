"""Experiment files and the plans they hold."""
