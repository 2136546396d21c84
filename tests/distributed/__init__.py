"""Tests of inq_ray.distributed."""
