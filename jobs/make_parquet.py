"""Write a folder of images as Parquet: `inq-ray parquet`."""

from inq_ray.cli.program import run_job

if __name__ == "__main__":
    run_job("parquet", "make_parquet")
