"""A clock that stands still until a test lets time pass."""


class Clock:
    """What a module under test takes for `time`: `monkeypatch.setattr(module, "time", Clock())`.

    Attributes:
        now: Seconds; only `sleep` moves them.
    """

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        """Return the seconds."""
        return self.now

    monotonic = perf_counter

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds
