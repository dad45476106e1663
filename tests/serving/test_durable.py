"""`serving.durable`: what was acknowledged stands in the log, whatever happens next; and what a kill costs without it."""

from __future__ import annotations

import asyncio
import errno
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

import pytest
from gyrostat_runtime import log
from serving.bench import Bench, arm, until

from gyrostat.serving.answers import Refusal
from gyrostat.serving.forms import INVOCATIONS
from gyrostat.serving.labels import LabelLog
from gyrostat.serving.predicting import Model
from gyrostat.serving.settings import ServingSettings

ROW = [2.0, 3.0, "kim"]
BODY = b'{"instances": [[2.0, 3.0, "kim"]]}'


def logged(bench: Bench) -> set[str]:
    return {frame.id for frame in log.read(bench.state / "log" / "wine")}


def acknowledged_until_kill_9(bench: Bench, n: int, **settings) -> set[str]:
    """Ids that eight clients were given by a server which is killed under their load after the n-th answer."""
    server = bench.serve(**settings)
    until(lambda: server.ask("GET", "/ready")[0] == 200)
    ids: list[str] = []

    def ask() -> None:
        link = server.connect()
        try:
            while True:
                status, answer = server.predict(ROW, link=link)
                assert status == 200
                ids.append(answer["id"])
        except Exception:  # noqa: BLE001 - in whatever way the kill shows
            link.close()

    clients = [threading.Thread(target=ask) for _ in range(8)]
    for client in clients:
        client.start()
    until(lambda: len(ids) >= n)
    server.kill()
    for client in clients:
        client.join()
    return set(ids)


def test_a_kill_9_under_load_loses_nothing_that_was_acknowledged(bench):
    bench.route(arm(bench.bundle(5.0)))
    # Nothing is written because of the time: what stands in the log was waited for.
    ids = acknowledged_until_kill_9(bench, 300, serving={"durable": True}, log_sync_s=60)
    assert ids - logged(bench) == set()


@pytest.fixture
def model(bench, tmp_path):
    """A durable model in this process that answers, on a disk that a test may slow down or fill."""
    bench.route(arm(bench.bundle(5.0)))

    @asynccontextmanager
    async def made():
        with ThreadPoolExecutor(2) as pool, ThreadPoolExecutor(1) as opener:
            settings = ServingSettings(durable=True)
            found = Model(bench.state, "wine", "w0", settings, pool=pool, opener=opener, sync_s=60)
            await found.receiver.start()
            yield found
            await found.close()

    return made


async def take(model: Model):
    return await model.take(BODY, b"", INVOCATIONS)


def test_answers_wait_for_the_disk_and_one_fsync_serves_all_that_wait(model, monkeypatch):
    gate, calls, fdatasync = threading.Event(), [], os.fdatasync

    def slow(handle):
        calls.append(handle)
        assert gate.wait(30)
        fdatasync(handle)

    async def story():
        async with model() as durable:
            with monkeypatch.context() as disk:
                disk.setattr(log.os, "fdatasync", slow)
                first = asyncio.create_task(take(durable))
                while not calls:
                    await asyncio.sleep(0.001)
                others = [asyncio.create_task(take(durable)) for _ in range(50)]
                while durable.n_requests < 51:  # all are computed
                    await asyncio.sleep(0.001)
                assert not [task for task in (first, *others) if task.done()]
                gate.set()
                answers = await asyncio.gather(first, *others)
            assert {answer.status for answer in answers} == {200}
            return len(calls)

    assert asyncio.run(story()) == 2


def test_on_a_full_disk_nothing_is_answered_that_the_log_does_not_keep(model, bench, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    async def story():
        async with model() as durable:
            answers = [await take(durable)]
            with monkeypatch.context() as disk:
                disk.setattr(log.os, "write", full)
                answers += [await take(durable) for _ in range(3)]
            n_computed = durable.n_requests
            durable.writer.sync()  # as the log does by itself: there is room again
            answers.append(await take(durable))
            return answers, n_computed

    answers, n_computed = asyncio.run(story())
    assert [answer.status for answer in answers] == [200, 503, 503, 503, 200]
    assert n_computed == 2  # of those refused only the one that found it out
    assert b"serving.not_kept" in answers[1].body
    assert b"No space left on device" in answers[1].body
    assert answers[1].retry_after_s
    assert len(logged(bench)) == 3


def test_an_answer_is_withheld_where_its_sync_failed_though_a_later_one_succeeds(
    model, monkeypatch
):
    n_calls, fdatasync = 0, os.fdatasync

    def once(handle):
        nonlocal n_calls
        n_calls += 1
        if n_calls == 1:
            raise OSError(errno.EIO, "Input/output error")
        fdatasync(handle)

    async def story():
        async with model() as durable:
            with monkeypatch.context() as disk:
                disk.setattr(log.os, "fdatasync", once)
                refused = asyncio.create_task(take(durable))
                while durable.n_requests < 1:
                    await asyncio.sleep(0)
                durable.writer.sync()  # the log's own thread may be the one that meets the fault
                durable.writer.heartbeat(0.0)
                assert durable.writer.sync()
                return (await refused).status, (await take(durable)).status

    assert asyncio.run(story()) == (503, 200)


def test_a_label_is_not_acknowledged_where_its_sync_failed_though_a_later_one_succeeds(
    tmp_path, monkeypatch
):
    calls, fdatasync = [], os.fdatasync

    def once(handle):
        calls.append(handle)
        if len(calls) == 1:
            raise OSError(errno.EIO, "Input/output error")
        fdatasync(handle)

    async def story():
        labels = LabelLog(tmp_path, "wine", "w0", sync_s=60)
        sync = labels._writer.sync
        # The log's own thread comes first, and meets the fault.
        monkeypatch.setattr(labels._writer, "sync", lambda: [sync(), sync()][-1])
        with monkeypatch.context() as disk:
            disk.setattr(log.os, "fdatasync", once)
            with pytest.raises(Refusal, match="did not take the labels"):
                await labels.take([("a", 1.0)], "r")
            assert (await labels.take([("a", 1.0)], "r")).status == 202
        labels.close()

    asyncio.run(story())
    assert calls
