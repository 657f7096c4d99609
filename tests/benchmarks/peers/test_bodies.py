import orjson

from benchmarks.peers.bodies import Bodies


def test_every_output_is_new_and_the_history_is_not() -> None:
    """Also beside another way of asking, which has a mark of its own."""
    ways = (Bodies("1k", "m", mark="a"), Bodies("1k", "m", mark="b"))
    sent = [orjson.loads(way.responses())["input"] for way in (*ways, *ways)]
    assert all(items[:-1] == sent[0][:-1] for items in sent)
    assert len({items[-1]["output"] for items in sent}) == 4
