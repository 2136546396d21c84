"""`python -m inq_ray` runs the program `inq-ray`."""

from inq_ray.cli.program import main

if __name__ == "__main__":
    main()
