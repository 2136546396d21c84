"""The trials of a sweep: what each is, where it stands, when it stops early, and which is best."""
