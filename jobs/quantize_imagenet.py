"""Quantize a trained network to powers of two on Ray workers: `inq-ray quantize`."""

from inq_ray.cli.program import run_job

if __name__ == "__main__":
    run_job("quantize", "quantize_imagenet")
