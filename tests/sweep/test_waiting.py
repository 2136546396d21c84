"""What trials wait for is reported after a while, and not all the time."""

from inq_ray.sweep.waiting import REPORT_SECONDS, TrialWaits


def test_what_a_trial_waits_for_is_reported_ever_more_rarely() -> None:
    now, said = 0.0, list[str]()
    waiting = TrialWaits(said.append, lambda: now)
    waiting.begin("t001", "its process")
    waiting.begin("t002", "its process")
    for now in range(int(REPORT_SECONDS) * 5):
        if now == 5:
            waiting.end("t002")
        waiting.report()
    assert said == ["t001  waits     10 s for its process", "t001  waits     40 s for its process"]
    waiting.begin("t001", "its first step")
    waiting.report()
    assert len(said) == 2
    now += REPORT_SECONDS
    waiting.report()
    assert said[-1] == "t001  waits     10 s for its first step"
