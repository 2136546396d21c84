"""The program `inq-ray`: a file for each command, with its flags and one call. jobs/*.py call the same."""
