"""Where each token of several sequences lies in one batch."""

import ctypes

from tightloop.engine.interface import Evaluate
from tightloop.engine.llama_cpp.mixed_batch import MixedBatch


def column(address: int, kind: "type[ctypes._SimpleCData[int]]", count: int) -> list[int]:
    """What the library reads at an address of the batch."""
    return list((kind * count).from_address(address))


def test_tokens_of_each_part_follow_what_its_sequence_holds() -> None:
    mixed = MixedBatch(16, 4)
    parts = [
        Evaluate(3, [70]),
        Evaluate(0, [10, 11, 12], all_logits=True),
        Evaluate(2, [50, 51]),
    ]
    assert mixed.fill(parts, [5, 0, 9]) == [0, 1, 4]
    batch = mixed.batch
    assert batch.n_tokens == 6
    assert column(batch.token, ctypes.c_int32, 6) == [70, 10, 11, 12, 50, 51]
    assert column(batch.pos, ctypes.c_int32, 6) == [5, 0, 1, 2, 9, 10]
    assert column(batch.n_seq_id, ctypes.c_int32, 6) == [1] * 6
    assert column(batch.logits, ctypes.c_int8, 6) == [1, 1, 1, 1, 0, 1]
    pointers = column(batch.seq_id, ctypes.c_uint64, 6)
    assert [column(at, ctypes.c_int32, 1)[0] for at in pointers] == [3, 0, 0, 0, 2, 2]


def test_filling_again_leaves_nothing_behind() -> None:
    mixed = MixedBatch(8, 2)
    mixed.fill([Evaluate(0, [1] * 8, all_logits=True)], [0])
    assert mixed.fill([Evaluate(1, [5, 6])], [3]) == [0]
    assert mixed.batch.n_tokens == 2
    assert column(mixed.batch.logits, ctypes.c_int8, 2) == [0, 1]
