"""What is searched: axes, schedules, options of a sweep, and who proposes the next point."""
