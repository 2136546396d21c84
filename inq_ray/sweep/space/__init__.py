"""Search space: axes, schedules, options of a sweep, and proposers of the next point."""
