import tomllib
from pathlib import Path

import pytest
from aiohttp import web

from benchmarks.lab.processes import NotStarted
from benchmarks.workshop import codex


def test_where_it_is_missing_the_remedy_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(codex, "CLIENTS", tmp_path)
    with pytest.raises(NotStarted, match="make clients"):
        codex.program()
    assert codex.versions() == {}
    start_script = tmp_path / "npm" / "node_modules" / ".bin" / "codex"
    start_script.parent.mkdir(parents=True)
    start_script.touch()
    with pytest.raises(NotStarted, match="native program"):
        codex.native_program()


def test_it_sees_a_home_of_its_own_and_no_other_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_OF_THE_USER", "x")
    found = codex.home_environment(tmp_path, tmp_path / "tmp", "http://127.0.0.1:9")
    assert "SECRET_OF_THE_USER" not in found
    assert found["HOME"] == str(tmp_path)
    assert found["https_proxy"] == "http://127.0.0.1:9"
    assert found["PATH"] in (tmp_path / ".profile").read_text()


async def test_its_configuration_names_the_server_and_the_mode(tmp_path: Path) -> None:
    async def models(_request: web.Request) -> web.Response:
        return web.json_response({"models": [{"slug": "scripted"}]})

    application = web.Application()
    application.router.add_get("/v1/models", models)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    try:
        variables = await codex.configure(tmp_path, url, codex.SANDBOXED)
    finally:
        await runner.cleanup()
    assert variables["CODEX_HOME"] == str(tmp_path / "codex")
    found = tomllib.loads((tmp_path / "codex" / "config.toml").read_text())
    assert found["sandbox_mode"] == "workspace-write"
    assert found["model_providers"]["tightloop"]["base_url"] == url
    assert found["features"] == {"apps": False, "plugins": False}
    assert found["model_catalog_json"] == str(tmp_path / "codex" / "catalog.json")
