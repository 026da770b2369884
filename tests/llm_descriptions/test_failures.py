"""The waits between attempts."""

from __future__ import annotations

from llm_descriptions.failures import Retry


def test_delays_double_up_to_a_limit():
    delays = [Retry().delay(attempt, 0.5) for attempt in range(1, 12)]
    for attempt, delay in enumerate(delays):
        longest = min(0.5 * 2**attempt, 30)
        assert longest / 2 <= delay <= longest
    assert Retry(after_s=7).delay(3, 0.5) == 7
    assert Retry(after_s=0).delay(4, 0.5) >= 2, "a server that asks for 0 s, or names a past date, gets pauses too"
