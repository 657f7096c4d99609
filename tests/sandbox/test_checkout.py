"""What is known of the checkout, path by path."""

from pathlib import Path

from tightloop.sandbox.checkout import Checkout
from tightloop.sandbox.entries import Change, Entry
from tightloop.sandbox.following import Lookout

BASE, APPLIED, USER = Entry(b"base"), Entry(b"applied"), Entry(b"user")


def test_origin_and_known(tmp_path: Path) -> None:
    """Applying moves what is known, following both; a copy goes its own way."""
    (tmp_path / "a").write_bytes(b"base")
    checkout = Checkout(tmp_path, Lookout(tmp_path, tmp_path / "state", None))
    assert (checkout.origin("a"), checkout.known("a"), checkout.known("b")) == (BASE, BASE, None)
    checkout.applied["a"] = APPLIED
    assert (checkout.origin("a"), checkout.known("a")) == (BASE, APPLIED)
    copy = checkout.copy()
    checkout.follow("a", USER)
    assert (checkout.origin("a"), checkout.known("a")) == (USER, USER)
    assert (copy.origin("a"), copy.known("a")) == (BASE, APPLIED)


def test_what_was_changed_since(tmp_path: Path) -> None:
    """Also a file that is again as in the base: the user had another one."""
    view = tmp_path / "view"
    view.mkdir()
    checkout = Checkout(tmp_path, Lookout(tmp_path, tmp_path / "state", None))
    checkout.follow("a", USER)
    checkout.follow("gone", None)
    (view / "a").write_bytes(b"user")
    assert list(checkout.changed_since(view)) == []
    (view / "a").write_bytes(b"base")
    (view / "gone").write_bytes(b"user")
    assert list(checkout.changed_since(view)) == [
        Change("a", USER, BASE),
        Change("gone", None, USER),
    ]
