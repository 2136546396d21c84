"""The program `inq-ray`: a file per command, with its flags and one call. jobs/*.py call the same functions."""
