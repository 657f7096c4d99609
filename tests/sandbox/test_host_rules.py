"""Which names and addresses may be reached."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tightloop.sandbox.host_rules import (
    AllowList,
    HostRuleError,
    Refused,
    parse_rule,
    plain_host,
)

RULES = AllowList([parse_rule("pypi.org"), parse_rule("*.Example.org."), parse_rule("git.test:22")])


@pytest.mark.parametrize(
    ("host", "port"),
    [
        ("pypi.org", 443),
        ("PyPI.org.", 80),
        ("a.example.org", 443),
        ("a.b.example.org", 443),
        ("git.test", 22),
    ],
)
def test_listed_names_pass(host: str, port: int) -> None:
    """Without regard to case, or to the dot that ends a full name."""
    assert RULES.check_name(host, port) == host.lower().removesuffix(".")


@pytest.mark.parametrize(
    ("host", "port"),
    [
        ("pypi.org.evil.test", 443),
        ("evilpypi.org", 443),
        ("pypi.org-evil.test", 443),
        ("www.pypi.org", 443),
        ("pypi.org", 8080),
        ("example.org", 443),  # the rule is for its subdomains
        ("evilexample.org", 443),
        ("git.test", 443),
        ("pypi", 443),
        ("pyp\u0456.org", 443),  # a Cyrillic letter
        ("xn--pyp-7ka.org", 443),
    ],
)
def test_names_that_look_alike_do_not(host: str, port: int) -> None:
    with pytest.raises(Refused):
        RULES.check_name(host, port)


@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1", "127.1", "2130706433", "0x7f000001", "0x7f.1", "0177.0.0.1", "1.2.3.4."),
        *("[::1]", "::1", "[::ffff:10.0.0.1]", "example.1", "a.0x"),
    ],
)
def test_addresses_in_any_spelling_are_refused(host: str) -> None:
    """Some resolver or library takes each of these for an address."""
    with pytest.raises(Refused, match="is an address"):
        plain_host(host)


@pytest.mark.parametrize("host", ["metadata.google.internal", "metadata", "METADATA.GOOG."])
def test_names_of_metadata_services_are_refused(host: str) -> None:
    with pytest.raises(Refused, match="metadata service"):
        plain_host(host)
    with pytest.raises(HostRuleError, match="metadata service"):
        parse_rule(host)


@pytest.mark.parametrize("host", ["", ".", "a..b", "-a.org", "a b.org", "a\r\nb", "a" * 64, "a@b"])
def test_what_is_no_host_name_is_refused(host: str) -> None:
    with pytest.raises(Refused, match="is not a host name"):
        plain_host(host)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("*", "not a host name"),
        ("*.com", "too wide"),
        ("10.0.0.1", "is an address"),
        ("pypi.org:0", "no port"),
        ("pypi.org:x", "no port"),
        ("pypi.org:", "no port"),
        ("https://pypi.org", "no port"),
        ("a.*.org", "not a host name"),
    ],
)
def test_rules_that_cannot_be_meant(text: str, said: str) -> None:
    with pytest.raises(HostRuleError, match=said):
        parse_rule(text)


@pytest.mark.parametrize("text", ["pypi.org", "*.example.org", "git.test:22"])
def test_a_rule_is_shown_as_it_was_written(text: str) -> None:
    assert str(parse_rule(text)) == text


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "100.64.0.1", "169.254.0.1"),
        *("0.0.0.0", "255.255.255.255", "224.0.0.1", "240.0.0.1", "::", "::1", "fe80::1"),
        *("fc00::1", "ff02::1", "::ffff:10.0.0.1", "::10.0.0.1", "2002:0a00:0001::1"),
        *("64:ff9b::7f00:1", "64:ff9b:1::a00:1", "2001:0:a00:1::1"),
    ],
)
def test_names_may_not_lead_to_private_addresses(address: str) -> None:
    """Nor to IPv6 addresses that carry a private one; one bad answer of several is enough."""
    found = [ipaddress.ip_address("1.1.1.1"), ipaddress.ip_address(address)]
    with pytest.raises(Refused, match=r"pypi\.org leads to the private address"):
        RULES.check_addresses("pypi.org", found)


@pytest.mark.parametrize(
    "address", ["169.254.169.254", "168.63.129.16", "fd00:ec2::254", "::ffff:169.254.169.254"]
)
def test_metadata_addresses_are_refused_also_when_listed(address: str) -> None:
    """A private network that is listed cannot open them."""
    everything = [ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0")]
    with pytest.raises(Refused, match="metadata service"):
        AllowList([], everything).check_addresses("a.test", [ipaddress.ip_address(address)])


def test_public_and_listed_private_addresses_pass_once_each() -> None:
    allow = AllowList([], [ipaddress.ip_network("10.1.0.0/16")])
    found = [ipaddress.ip_address(text) for text in ("1.1.1.1", "10.1.2.3", "1.1.1.1", "2606::1")]
    assert allow.check_addresses("a.test", found) == [found[0], found[1], found[3]]


def test_a_name_without_addresses() -> None:
    with pytest.raises(Refused, match="no address"):
        RULES.check_addresses("pypi.org", [])


@given(st.text(max_size=40))
def test_any_text_is_a_plain_name_or_refused(text: str) -> None:
    """What passes is ASCII, in lower case, and passes again unchanged."""
    try:
        plain = plain_host(text)
    except Refused:
        return
    assert plain.isascii()
    assert plain == plain.lower() == plain_host(plain)


@given(st.from_regex(r"[a-z]{1,8}(\.[a-z]{1,8}){0,3}", fullmatch=True))
def test_only_the_name_itself_or_names_below_a_wildcard_match(host: str) -> None:
    allow = AllowList([parse_rule("pypi.org"), parse_rule("*.example.org")])
    is_listed = host == "pypi.org" or host.endswith(".example.org")
    try:
        allow.check_name(host, 443)
    except Refused:
        assert not is_listed
    else:
        assert is_listed
