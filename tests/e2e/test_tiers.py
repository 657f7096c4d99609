"""Several backends behind one server: 91x. Real processes, one of which is killed."""

import json
import os
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from openai import OpenAI

from tests.e2e.conftest import END_TIMEOUT_S, Serve, command, run
from tests.e2e.wire import create, open_socket, text_of
from tightloop.trace.log import read_log

Sdk = Callable[[str], OpenAI]

EXAMPLE = Path(__file__).parents[2] / "examples/tiers/tiers.toml"


class Upstream:
    """A server of its own on a port of its own, which can be killed and started again."""

    def __init__(self, name: str, folder: Path) -> None:
        self.folder = folder / name
        self.folder.mkdir()
        self.script = self.folder / "script.json"
        self.script.write_text(json.dumps({"answers": [[{"text": f"said by {name}"}]]}))
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.process: subprocess.Popen[str] | None = None

    @property
    def engine(self) -> str:
        return f"remote:scripted@http://127.0.0.1:{self.port}/v1"

    def start(self) -> None:
        words = ["serve", "--model", f"scripted:{self.script}", "--port", str(self.port)]
        self.process = subprocess.Popen(
            [*command(), *words, "--json-ready", "--state-dir", str(self.folder)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline(), "the upstream did not start"

    def kill(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(END_TIMEOUT_S)
        assert self.process.stdout is not None
        self.process.stdout.close()
        self.process = None


@pytest.fixture
def upstreams(tmp_path: Path) -> Iterator[tuple[Upstream, Upstream]]:
    pair = Upstream("alpha", tmp_path), Upstream("beta", tmp_path)
    for one in pair:
        one.start()
    yield pair
    for one in pair:
        if one.process is not None:
            one.kill()


def config(folder: Path, policy: str, *upstreams: Upstream) -> str:
    """A configuration file with one model, ``coder``; alpha is fast, beta is bulk."""
    members = "".join(
        f'[[model.member]]\nname = "{name}"\ntier = "{tier}"\nengine = "{one.engine}"\n'
        for one, name, tier in zip(upstreams, ("alpha", "beta"), ("fast", "bulk"), strict=True)
    )
    text = (
        f'[routing]\npolicy = "{policy}"\ndecision_log = "decisions.jsonl"\n'
        "requests_may_choose = true\n"
        "[breaker]\nmax_consecutive = 2\npause_s = 0.05\nmax_pause_s = 0.05\n"
        f'[[model]]\nname = "coder"\n{members}'
    )
    path = folder / "tiers.toml"
    path.write_text(text, "utf-8")
    return str(path)


def lines(folder: Path, kind: str) -> list[dict[str, Any]]:
    return [line for line in read_log(folder / "decisions.jsonl") if line["kind"] == kind]


@pytest.fixture
def sdk() -> Iterator[Sdk]:
    """Clients of the URLs given; closed at the end, with their connections."""
    with ExitStack() as opened:

        def client(url: str) -> OpenAI:
            return opened.enter_context(OpenAI(base_url=url, api_key="none", max_retries=0))

        yield client


def test_910_nobody_sees_a_backend_die(
    serve: Serve, upstreams: tuple[Upstream, Upstream], tmp_path: Path
) -> None:
    """Requests go on without an error while one of two is killed, and it is used again afterwards."""
    alpha, beta = upstreams
    served = serve("--config", config(tmp_path, "latency-first", alpha, beta))
    said: list[str] = []
    with open_socket(served.socket_url) as line:

        def ask() -> str:
            last = create(line, model="coder", store=False)[-1]
            assert last["type"] == "response.completed", last
            said.append(text_of(last))
            return said[-1]

        assert {ask() for _ in range(5)} == {"said by alpha"}
        alpha.kill()
        assert {ask() for _ in range(20)} == {"said by beta"}
        alpha.start()
        for _ in range(2000):  # a probe finds it after the pause
            if ask() == "said by alpha":
                break
        assert {ask() for _ in range(5)} == {"said by alpha"}
    assert served.signal(signal.SIGTERM) == 0
    decided = lines(tmp_path, "route.decided")
    assert len(decided) == len(said)
    assert [f"said by {one['backend']}" for one in decided] == said
    failed = [one for one in decided if one["failures"]]
    assert failed
    assert {one["failures"][0]["member"] for one in failed} == {"alpha"}
    assert {one["backend"] for one in failed} == {"beta"}
    assert "alpha is not available" in {one["reason"] for one in decided}
    outcomes = {one["outcome"] for one in lines(tmp_path, "route.ended")}
    assert outcomes == {"stop"}


def test_911_a_stream_that_was_cut_is_not_begun_again(
    serve: Serve, sdk: Sdk, upstreams: tuple[Upstream, Upstream], tmp_path: Path
) -> None:
    """After the first delta the client is told; its next request is answered by the other one."""
    alpha, beta = upstreams
    alpha.kill()
    alpha.script.write_text(json.dumps({"answers": [[{"text": "half"}, {"hold": True}]]}))
    alpha.start()
    served = serve("--config", config(tmp_path, "latency-first", alpha, beta))
    client = sdk(served.url)
    seen = []
    with client.responses.create(model="coder", input="hi", stream=True) as stream:
        for event in stream:
            seen.append(event.type)
            if event.type == "response.output_text.delta":
                alpha.kill()
    assert seen.count("response.output_text.delta") == 1
    assert seen[-1] == "response.failed"
    assert client.responses.create(model="coder", input="hi").output_text == "said by beta"


def test_912_a_split_is_an_arm_of_a_test(
    serve: Serve, sdk: Sdk, upstreams: tuple[Upstream, Upstream], tmp_path: Path
) -> None:
    """Sessions keep their arm, the log says which, and the answer tells its client."""
    served = serve("--config", config(tmp_path, "split:alpha=50,beta=50", *upstreams))
    client = sdk(served.url)
    for number in range(40):
        raw = client.responses.with_raw_response.create(
            model="coder", input="hi", prompt_cache_key=f"session-{number % 20}"
        )
        response = raw.parse()
        backend = response.output_text.removeprefix("said by ")
        assert f'backend;desc="{backend}"' in raw.headers["Server-Timing"]
        assert response.service_tier == {"alpha": "priority", "beta": "flex"}[backend]
    forced = client.responses.create(
        model="coder",
        input="hi",
        service_tier="priority",
        metadata={"tightloop.tier_policy": "only:beta"},
    )
    assert (forced.output_text, forced.service_tier) == ("said by beta", "flex")
    assert served.signal(signal.SIGTERM) == 0
    *split, last = lines(tmp_path, "route.decided")
    arms: dict[str, set[str]] = {}
    for one in split:
        assert one["policy"] == "split:alpha=50,beta=50"
        arms.setdefault(one["session"], set()).add(one["backend"])
    assert len(arms) == 20
    assert all(len(backends) == 1 for backends in arms.values())
    assert set.union(*arms.values()) == {"alpha", "beta"}
    assert (last["policy"], last["backend"]) == ("only:beta", "beta")


def test_913_models_are_listed_and_checked(serve: Serve, sdk: Sdk, tmp_path: Path) -> None:
    """The example as it is: ``--check`` says what it means, and the server has both models."""
    checked = run("serve", "--config", str(EXAMPLE), "--check")
    assert (checked.returncode, checked.stderr) == (0, "")
    assert "policy of coder: latency-first" in checked.stdout
    for file in EXAMPLE.parent.glob("*.*"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    served = serve("--config", str(tmp_path / EXAMPLE.name))
    client = sdk(served.url)
    assert [model.id for model in client.models.list()] == ["coder", "echo"]
    with open_socket(served.socket_url) as line:
        events = create(line, model="coder", client_metadata={"tightloop.timing": "1"})
        timing = next(event for event in events if event["type"] == "tightloop:timing")
        assert timing["route"] == {
            "backend": "fast",
            "service_tier": "priority",
            "reason": "latency-first: short answer, about 400 tokens: tier fast",
        }
        refused = create(line, model="nothing")[-1]
        assert "this server has coder, echo" in refused["error"]["message"]


def test_914_two_local_engines_at_once(serve: Serve, sdk: Sdk, tmp_path: Path) -> None:
    """The bundled model twice, each with its own thread, under two names."""
    text = "".join(f'[[model]]\nname = "{name}"\nengine = "patchling"\n' for name in ("one", "two"))
    path = tmp_path / "two.toml"
    path.write_text(text)
    served = serve("--config", str(path))
    client = sdk(served.url)
    answers = [client.responses.create(model=name, input="hi") for name in ("one", "two", "one")]
    assert [answer.status for answer in answers] == ["completed"] * 3
    assert len(os.listdir(f"/proc/{served.process.pid}/task")) >= 3
