"""Tests of inq_ray.export."""
