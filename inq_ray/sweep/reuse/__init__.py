"""Stages that trials share are trained once: their keys, what of them is stored, and who can start from which."""
