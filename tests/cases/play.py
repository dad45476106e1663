#!/usr/bin/env python3
# ruff: noqa
"""Replay request cases against a running model server.

    python3 play.py FOLDER http://HOST:PORT [--only WORD ...] [--model NAME] [--token TEXT] [--timeout 30] [--json]

FOLDER holds *.jsonl, one case a line; the format is described in shared/cases/requests/README.md.
Every case goes over a plain socket, so that broken bytes reach the server as they are. One line is printed
for each case that falls short, then a total. Exit code: 0 all hold, 1 some fall short, 2 the cases are unsound.
Standard library only.
"""

import argparse
import base64
import json
import math
import pathlib
import re
import socket
import sys
import threading
import time
import urllib.parse
import zlib

CLOSED = 0  # "status" when the connection ends without an answer
LEAKS = ("Traceback", "site-packages", 'File "', "/home/", "/usr/lib", "SELECT ", "0x7f")


class Unsound(Exception):
    """A case that the player cannot play: a fault of the case, not of the server."""


# ---- bodies that are described, not written out ---------------------------------------------------


def _texts(text):
    """The JSON strings in `text`, in order; other words between them are for the reader."""
    found, i, decoder = [], 0, json.JSONDecoder()
    while (i := text.find('"', i)) >= 0:
        value, i = decoder.raw_decode(text, i)
        found.append(value)
    return found


def make(recipe):
    """`repeat N "piece" into "before@after"`, `nest N "open" "close" into "before@after"`; `gzip` in front packs it."""
    if recipe.startswith("gzip "):
        packer = zlib.compressobj(9, zlib.DEFLATED, 31)
        return b"".join([packer.compress(part) for part in _parts(recipe[5:])] + [packer.flush()])
    return b"".join(_parts(recipe))


def _parts(recipe):
    verb, count, rest = recipe.split(" ", 2)
    count, texts = int(count), [t.encode() for t in _texts(rest)]
    if verb == "repeat" and len(texts) == 2:
        pieces = [(texts[0], count)]
    elif verb == "nest" and len(texts) == 3:
        pieces = [(texts[0], count), (texts[1], count)]
    else:
        raise Unsound(f"unknown recipe: {recipe[:80]}")
    before, _, after = texts[-1].partition(b"@")
    yield before
    for piece, times in pieces:
        block = max(1, min(times, 1_000_000 // max(1, len(piece))))
        while times > 0:
            yield piece * min(block, times)
            times -= block
    yield after


def body_of(case):
    if "body_make" in case:
        return make(case["body_make"])
    if "body_base64" in case:
        return base64.b64decode(case["body_base64"])
    return case["body"].encode() if case.get("body") is not None else b""


# ---- the wire -------------------------------------------------------------------------------------


class Answer:
    def __init__(self, status, headers=(), body=b"", seconds=0.0):
        self.status, self.headers, self.body, self.seconds = status, dict(headers), body, seconds

    def value(self):
        """The body as strict JSON; NaN and Infinity are not JSON."""

        def refuse(word):
            raise ValueError(f"{word} is not JSON")

        return json.loads(self.body.decode("utf-8"), parse_constant=refuse)

    def error(self):
        try:
            error = self.value()["error"]
            return error if isinstance(error, dict) else {}
        except (ValueError, KeyError, TypeError):
            return {}

    def predictions(self):
        """The numbers, whatever the protocol that carries them; None when there are none."""
        try:
            value = self.value()
        except ValueError:
            return None
        if isinstance(value, dict) and isinstance(value.get("outputs"), list) and value["outputs"]:
            value = (
                value["outputs"][0].get("data") if isinstance(value["outputs"][0], dict) else None
            )
        elif isinstance(value, dict):
            value = value.get("predictions", value.get("prediction"))
        if isinstance(value, (int, float)):
            value = [value]
        if not isinstance(value, list):
            return None
        flat = []
        for item in value:
            if isinstance(item, dict):
                item = item.get("prediction", item.get("value"))
            flat += item if isinstance(item, list) else [item]
        return flat


def read_answer(stream, started, head=False):
    """One HTTP answer from the stream, or an Answer(CLOSED)."""
    try:
        while True:
            line = stream.readline(65537)
            if not line:
                return Answer(CLOSED, seconds=time.monotonic() - started)
            found = re.match(rb"HTTP/1\.[01] (\d\d\d)", line)
            if not found:
                return Answer(-1, body=line + stream.read(200), seconds=time.monotonic() - started)
            status, headers = int(found[1]), {}
            while (line := stream.readline(65537)) not in (b"\r\n", b"\n", b""):
                name, _, value = line.decode("latin-1").partition(":")
                headers[name.strip().lower()] = value.strip()
            if status >= 200:
                break
        if head or status in (204, 304):
            body = b""
        elif "chunked" in headers.get("transfer-encoding", "").lower():
            body = b""
            while size := int(stream.readline(1000).split(b";")[0] or b"0", 16):
                body += stream.read(size)
                stream.readline(10)
            while stream.readline(65537) not in (b"\r\n", b"\n", b""):
                pass
        elif "content-length" in headers:
            body = stream.read(int(headers["content-length"]))
        else:
            body = stream.read()
        return Answer(status, headers, body, time.monotonic() - started)
    except TimeoutError:
        return Answer(None, seconds=time.monotonic() - started)
    except (OSError, ValueError):
        return Answer(CLOSED, seconds=time.monotonic() - started)


def steps_of(case, address, token, model):
    """What goes over the wire: [bytes | ("wait", s) | ("end",)]."""
    host = "{}:{}".format(*address)
    if "send" in case:
        steps = []
        for step in case["send"]:
            if "text" in step:
                text = step["text"].replace("{host}", host).replace("/homes", "/" + model)
                steps.append(text.encode())
            elif "base64" in step:
                steps.append(base64.b64decode(step["base64"]))
            elif "make" in step:
                steps.append(make(step["make"]))
            elif "drip" in step:
                for letter in step["drip"].encode():
                    steps += [bytes([letter]), ("wait", step.get("every", 1.0))]
            elif "wait" in step:
                steps.append(("wait", step["wait"]))
            elif "end" in step:
                steps.append(("end",))
            else:
                raise Unsound(f"{case['id']}: unknown step {step}")
        return steps
    body = body_of(case)
    headers = {"Host": host, **case.get("headers", {})}
    if body and not {"content-length", "transfer-encoding"} & {h.lower() for h in headers}:
        headers["Content-Length"] = str(len(body))
    if token:
        headers["Authorization"] = "Bearer " + token
    path = case["path"].replace("/homes", "/" + model)
    lines = [f"{case['method']} {path} HTTP/1.1"] + [f"{k}: {v}" for k, v in headers.items()]
    return [("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + body]


def exchange(case, address, timeout, token="", model="homes"):
    """Send the case, read as many answers as it expects and one more if the connection stays open."""
    steps = steps_of(case, address, token, model)
    expected = case["expect"].get("answers")
    started, answers = time.monotonic(), []
    try:
        link = socket.create_connection(address, timeout=timeout)
    except OSError as error:
        return [Answer(-1, body=f"cannot connect: {error}".encode())], True

    def send():
        try:
            for step in steps:
                if isinstance(step, bytes):
                    link.sendall(step)
                elif step[0] == "wait":
                    if stop.wait(step[1]):
                        return
                else:
                    link.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # the server closed first; what it answered still counts

    stop = threading.Event()
    sender = threading.Thread(target=send, daemon=True)
    sender.start()
    link.settimeout(case["expect"].get("within", timeout) + 5)
    stream = link.makefile("rb")
    head = case.get("method") == "HEAD"
    for _ in range(len(expected) if expected else 1):
        answers.append(read_answer(stream, started, head))
        if answers[-1].status in (None, CLOSED, -1):
            break
    closed = answers[-1].status in (CLOSED, -1)
    if case["expect"].get("closes") and not closed:
        link.settimeout(5)
        extra = read_answer(stream, started)
        closed = extra.status == CLOSED
        if extra.status not in (None, CLOSED):
            answers.append(extra)
    stop.set()
    for close in (stream.close, link.close):
        try:
            close()
        except OSError:
            pass
    return answers, closed


# ---- what is expected -----------------------------------------------------------------------------


def as_list(value):
    return value if isinstance(value, list) else [value]


def judge_one(answer, expect, statuses):
    """What falls short in one answer, as words."""
    if answer.status is None:
        return [f"no answer in {answer.seconds:.0f} s"]
    if answer.status == -1:
        return ["not HTTP: " + repr(answer.body[:60])]
    if answer.status not in statuses:
        word = (
            "closed without an answer" if answer.status == CLOSED else f"answered {answer.status}"
        )
        return [f"{word}, allowed {' '.join(map(str, statuses))}"]
    short, text = [], answer.body.decode("utf-8", "replace")
    for leak in LEAKS:
        if answer.status >= 400 and leak in text:
            short.append(f"the answer shows insides: {leak!r}")
    if answer.status >= 400 and expect.get("form", True):
        error = answer.error()
        lacking = [
            k
            for k in ("code", "message", "request_id")
            if not isinstance(error.get(k), str) or not error[k]
        ]
        if "at" not in error:
            lacking.append("at")
        if lacking:
            short.append("error without " + ", ".join(lacking))
        if not answer.headers.get("content-type", "").startswith("application/json"):
            short.append("error is not application/json")
        if expect.get("at") is not None and error.get("at") not in as_list(expect["at"]):
            short.append(f"at is {error.get('at')!r}, not {' or '.join(as_list(expect['at']))}")
        message = str(error.get("message", "")) + " " + str(error.get("at", ""))
        short += [
            f"message lacks {word!r}"
            for word in expect.get("says") or []
            if word.lower() not in message.lower()
        ]
    elif 200 <= answer.status < 300:
        short += [
            f"answer lacks {word!r}"
            for word in expect.get("says_if_answered") or []
            if word not in text
        ]
    if "smaller_than" in expect and len(answer.body) >= expect["smaller_than"]:
        short.append(f"answer of {len(answer.body):,} bytes, allowed {expect['smaller_than']:,}")
    return short


def numbers_short(answer, expect, reference):
    """Rows, finiteness and sameness; only for answers that carry predictions."""
    if not 200 <= (answer.status or 0) < 300 or (
        expect.get("rows") is None and not expect.get("same_as")
    ):
        return []
    try:
        answer.value()
    except ValueError as error:
        return [f"not strict JSON: {error}"]
    found = answer.predictions()
    if found is None:
        return ["no predictions in the answer"]
    if expect.get("rows") is not None and len(found) != expect["rows"]:
        return [f"{len(found)} predictions, expected {expect['rows']}"]
    bad = [
        x
        for x in found
        if isinstance(x, bool) or not isinstance(x, (int, float)) or not math.isfinite(x)
    ]
    if bad:
        return [f"a prediction is {bad[0]!r}"]
    if expect.get("same_as"):
        if reference is None or reference.predictions() is None:
            return [f"{expect['same_as']} gave no numbers to compare with"]
        wanted = reference.predictions()
        if len(wanted) != len(found) or any(
            not math.isclose(a, b, rel_tol=1e-5, abs_tol=1e-5) for a, b in zip(wanted, found)
        ):
            return [f"other numbers than {expect['same_as']}: {found[:3]} against {wanted[:3]}"]
    return []


class Player:
    def __init__(self, cases, address, timeout, token, model):
        self.cases, self.address, self.timeout, self.token, self.model = (
            cases,
            address,
            timeout,
            token,
            model,
        )
        self.seen = {}
        self.probe = next((c for c in cases.values() if c.get("probe")), None)

    def first(self, name):
        if name not in self.seen:
            self.seen[name] = exchange(
                self.cases[name], self.address, self.timeout, self.token, self.model
            )
        return self.seen[name][0][0]

    def play(self, case):
        if case.get("beside"):
            return self.play_beside(case)
        expect = case["expect"]
        answers, closed = self.seen.get(case["id"]) or exchange(
            case, self.address, self.timeout, self.token, self.model
        )
        self.seen[case["id"]] = answers, closed
        short = self.judge(case, answers, closed)
        return short + self.lives(case)

    def judge(self, case, answers, closed):
        expect, short = case["expect"], []
        wanted = expect.get("answers") or [expect["status"]]
        if len(answers) > len(wanted):
            short.append(f"{len(answers)} answers, expected {len(wanted)}")
        for i, statuses in enumerate(wanted):
            where = f"answer {i + 1}: " if len(wanted) > 1 else ""
            if i >= len(answers):
                short.append(where + "missing")
                break
            short += [where + s for s in judge_one(answers[i], expect, statuses)]
        reference = self.first(expect["same_as"]) if expect.get("same_as") else None
        if expect.get("answers"):
            for i, answer in enumerate(answers[: len(wanted)]):
                short += [f"answer {i + 1}: {s}" for s in numbers_short(answer, expect, reference)]
        else:
            short += numbers_short(answers[0], expect, reference)
        if expect.get("closes") and not closed:
            short.append("connection stays open")
        if "within" in expect and answers[-1].seconds > expect["within"]:
            short.append(f"took {answers[-1].seconds:.1f} s, allowed {expect['within']}")
        return short

    def lives(self, case):
        """After every case a good request must be answered as before."""
        if self.probe is None or case is self.probe:
            return []
        before = self.first(self.probe["id"])
        if before.status != 200:
            return []  # said once, at the probe itself
        after = exchange(self.probe, self.address, self.timeout, self.token, self.model)[0][0]
        return [
            "afterwards " + s
            for s in judge_one(after, self.probe["expect"], [200])
            + numbers_short(
                after,
                {"rows": self.probe["expect"].get("rows"), "same_as": self.probe["id"]},
                before,
            )
        ]

    def play_beside(self, case):
        """The case again and again while good clients go on: each gets what it deserves."""
        plan, expect, short = case["beside"], case["expect"], set()
        good, lock, over = self.cases[plan["good"]], threading.Lock(), threading.Event()
        reference, slowest, count = self.first(good["id"]), [0.0], [0]

        def client():
            while not over.is_set():
                answer = exchange(good, self.address, self.timeout, self.token, self.model)[0][0]
                faults = judge_one(
                    answer, good["expect"], good["expect"]["status"]
                ) or numbers_short(answer, {**good["expect"], "same_as": good["id"]}, reference)
                with lock:
                    count[0] += 1
                    slowest[0] = max(slowest[0], answer.seconds)
                    short.update("a neighbour: " + f for f in faults)

        clients = [
            threading.Thread(target=client, daemon=True) for _ in range(plan.get("clients", 4))
        ]
        for thread in clients:
            thread.start()
        for _ in range(plan.get("times", 20)):
            answers, closed = exchange(case, self.address, self.timeout, self.token, self.model)
            short.update(self.judge(case, answers, closed))
        over.set()
        for thread in clients:
            thread.join(self.timeout)
        if "neighbours_within" in expect and slowest[0] > expect["neighbours_within"]:
            short.add(
                f"a neighbour waited {slowest[0]:.2f} s, allowed {expect['neighbours_within']}"
            )
        if not count[0]:
            short.add("no neighbour was answered")
        return sorted(short) + self.lives(case)


# ---- reading and telling --------------------------------------------------------------------------


def read_cases(folder):
    cases = {}
    for path in sorted(pathlib.Path(folder).glob("*.jsonl")):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if not line.strip():
                continue
            try:
                case = json.loads(line)
                case["id"], case["kind"], case["why"], case["expect"]["status"]
                if "send" not in case:
                    case["method"], case["path"]
            except (ValueError, KeyError, TypeError) as error:
                raise Unsound(f"{path.name}:{number}: {error!r}") from None
            if case["id"] in cases:
                raise Unsound(f"{path.name}:{number}: {case['id']} stands twice")
            cases[case["id"]] = case
    for case in cases.values():
        for name in [case["expect"].get("same_as"), (case.get("beside") or {}).get("good")]:
            if name and name not in cases:
                raise Unsound(f"{case['id']} names {name}, which is not there")
    return cases


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder")
    parser.add_argument("url")
    parser.add_argument("--only", nargs="*", default=[], help="ids or kinds, or beginnings of them")
    parser.add_argument("--model", default="homes")
    parser.add_argument("--token", default="")
    parser.add_argument("--timeout", type=float, default=30)
    parser.add_argument(
        "--json", action="store_true", help="a JSON line for each case, also for those that hold"
    )
    args = parser.parse_args()
    try:
        cases = read_cases(args.folder)
        where = urllib.parse.urlsplit(args.url)
        player = Player(
            cases, (where.hostname, where.port or 80), args.timeout, args.token, args.model
        )
        started, held, played = time.monotonic(), 0, 0
        for case in cases.values():
            if args.only and not any(
                case["id"].startswith(w) or case["kind"].startswith(w) for w in args.only
            ):
                continue
            played += 1
            short = player.play(case)
            held += not short
            if args.json:
                print(
                    json.dumps({"id": case["id"], "kind": case["kind"], "short": short}), flush=True
                )
            elif short:
                print(f"no    {case['id']:<34} {'; '.join(short)}   [{case['why']}]", flush=True)
    except Unsound as error:
        print(f"error  {error}", file=sys.stderr)
        return 2
    print(
        f"{held} of {played} cases hold, {played - held} fall short.  {time.monotonic() - started:.1f} s",
        flush=True,
    )
    return 0 if held == played and played else 1


if __name__ == "__main__":
    sys.exit(main())
