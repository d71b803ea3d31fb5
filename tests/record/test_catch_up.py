"""What calls left in the log is there when a reader of it has caught up."""

from __future__ import annotations

import parrot_nb as P
from parrot_nb.record import catch_up
from parrot_nb.runtime.events import CallChanged


def test_the_end_of_a_call_whose_value_was_read_is_in_the_log():
    """The reader hears of a value before the log does."""
    with P.Session() as session:
        double = P.native_function(lambda text: text * 2, name="double")
        for number in range(1, 40):
            double("a").get()
            catch_up(session)
            ended = [event for event in session.events.since(0) if isinstance(event, CallChanged) and event.phase == "ended"]
            assert len(ended) == number


def test_a_call_that_was_only_made_is_not_run_by_it():
    with P.Session() as session:
        call = P.native_function(lambda: "never", name="never")()
        catch_up(session)
        assert call.state == "pending"
        call.cancel()
