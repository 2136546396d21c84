"""What a person or a log collector sees of a run: plan, events, console, JSON lines, the next command."""
