"""Search schedules, learning rates and bits on Ray workers: `inq-ray sweep`."""

from inq_ray.cli.program import run_job

if __name__ == "__main__":
    run_job("sweep", "sweep_schedules")
