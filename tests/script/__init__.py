"""Tests of `script/`, against a made-up `docker`."""
