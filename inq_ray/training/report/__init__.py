"""Reports of a run for people and log collectors: plan, events, console, JSON lines, the next command."""
