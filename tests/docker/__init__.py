"""Tests of what is under docker/."""
