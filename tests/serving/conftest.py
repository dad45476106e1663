"""Fixtures of the model server's tests."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from serving.bench import Bench, Server, arm


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """A state folder with keys; its servers are ended with the test."""
    bench = Bench(tmp_path)
    with contextlib.ExitStack() as stack:
        stack.callback(lambda: [server.close() for server in bench.servers])
        yield bench


@pytest.fixture(scope="session")
def steady(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Bench, Server]]:
    """As `served`, one for all tests that change nothing and look at nothing that others leave behind."""
    bench = Bench(tmp_path_factory.mktemp("steady"))
    bench.route_bundle = bench.bundle(5.0)
    seq = bench.route(arm(bench.route_bundle))
    server = bench.serve()
    bench.wait_for(seq)
    yield bench, server
    server.close()


@pytest.fixture
def served(bench: Bench) -> tuple[Bench, Server]:
    """A server with version 1 of `wine` as champion, which answers 5 + alcohol + pH."""
    bench.route_bundle = bench.bundle(5.0)
    seq = bench.route(arm(bench.route_bundle))
    server = bench.serve()
    bench.wait_for(seq)
    return bench, server
