from benchmarks.lab.columns import Column, layout

NAMES = Column("name", ["one", "three"])


def test_numbers_stand_to_the_right() -> None:
    lines = layout([NAMES], [Column("size", ["1", "12345"], is_number=True)])
    assert lines == ["name    size", "one        1", "three  12345"]


def test_what_is_too_wide_goes_below_with_the_names_again() -> None:
    figures = [Column("aaaa", ["1", "2"]), Column("bbbb", ["3", "4"])]
    lines = layout([NAMES], figures, width=12)
    assert lines == [
        "name   aaaa",
        "one    1",
        "three  2",
        "",
        "name   bbbb",
        "one    3",
        "three  4",
    ]


def test_a_row_without_a_figure_in_the_block_is_left_out() -> None:
    figures = [Column("a", ["-", "2"]), Column("b", ["3", "-"])]
    assert layout([NAMES], figures, width=8) == ["name   a", "three  2", "", "name  b", "one   3"]


def test_names_alone_are_a_table() -> None:
    assert layout([NAMES], []) == ["name", "one", "three"]
