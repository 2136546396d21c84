"""Reuse of stages that trials share: their keys, the stored ends, and which trial starts from which."""
