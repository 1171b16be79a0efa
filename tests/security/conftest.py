"""One real server for all attacks that need one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from live import Server, linear_model_dir, live_server


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    home = tmp_path_factory.mktemp("attacked")
    with live_server(linear_model_dir(home / "risk"), home / "data") as running:
        yield running


@pytest.fixture(scope="session")
def token(server: Server) -> str:
    return server.register("ada")
