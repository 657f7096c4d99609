"""Errors for wishes to end what there is not."""

from tightloop.server.ending_early import nothing_to_end, unknown_here


def test_an_id_is_named_at_bounded_length() -> None:
    """And whether it is somebody else's."""
    long = "x" * 10_000
    assert len(unknown_here(long, is_elsewhere=False).message) < 300
    assert "another connection" in unknown_here("resp_1", is_elsewhere=True).message
    assert "'resp_1'" in unknown_here("resp_1", is_elsewhere=True).message


def test_the_lane_is_named_at_bounded_length() -> None:
    """The default one has no name."""
    assert "default lane" in nothing_to_end(None).message
    assert "'a'" in nothing_to_end("a").message
    assert len(nothing_to_end("x" * 10_000).message) < 400
