"""`python -m inq_ray` is the program `inq-ray`."""

from inq_ray.cli.program import main

if __name__ == "__main__":
    main()
