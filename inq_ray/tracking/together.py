"""Several reporters as one."""

from inq_ray.tracking.fault import warn
from inq_ray.training.report.events import Event, Reporter


class Together:
    """Several reporters as one, whose errors do not end the run.

    The first error of a reporter is a line on stderr. The others get the event anyway, and it gets the next ones: a
    full disk may have space again.
    """

    def __init__(self, *reporters: Reporter) -> None:
        self._reporters = reporters
        self._failed: set[int] = set()

    def report(self, event: Event) -> None:
        """Pass an event to each reporter."""
        for index, reporter in enumerate(self._reporters):
            try:
                reporter.report(event)
            except (Exception, SystemExit) as error:  # noqa: BLE001, rich raises SystemExit for a closed pipe
                self._say_once(index, error)

    def _say_once(self, index: int, error: BaseException) -> None:
        if index not in self._failed:
            self._failed.add(index)
            warn(f"the run continues, but {type(self._reporters[index]).__name__} misses reports", error)
