"""Tests of inq_ray.files."""
