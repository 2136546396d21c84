"""Measure what a run costs on Ray workers, and which flags are worth it: `inq-ray benchmark`."""

from inq_ray.cli.program import run_job

if __name__ == "__main__":
    run_job("benchmark", "benchmark_cluster")
