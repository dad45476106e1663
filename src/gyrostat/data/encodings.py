"""Which encoding a text is in, judged on all of its bytes, and the text in UTF-8."""

from __future__ import annotations

import re

from gyrostat.errors import DataError

SHOWN = {
    "utf-8": "UTF-8", "utf-16": "UTF-16", "utf-16-le": "UTF-16 (little endian, no mark)",
    "utf-16-be": "UTF-16 (big endian, no mark)", "latin-1": "Latin-1",
}  # fmt: skip
MARK = b"\xef\xbb\xbf"
_MARKS = (b"\xff\xfe", b"\xfe\xff")


def judge(data: bytes, name: str) -> str:
    """The encoding: UTF-8 if it is, UTF-16 by its mark or its zeros, cp949 where that gives Korean, else Western.

    Raises:
        DataError: it is binary, in two encodings, or in one that is none of these.
    """
    if data.startswith(_MARKS) and _reads(data, "utf-16"):
        return "utf-16"
    wide = _wide(data)
    if wide:
        return wide
    no_binary(data, name)
    if _reads(data, "utf-8"):
        return "utf-8"
    _one_encoding(data, name)
    try:
        korean = data.decode("cp949")
    except UnicodeDecodeError:
        korean = ""
    # In Western text an accented letter stands between plain ones; read as cp949 it swallows its neighbour and gives
    # a rare syllable or a hanja, so most of real Korean is told from it by runs of Hangul.
    foreign = sum(len(run) for run in re.findall(r"[^\x00-\x7f]+", korean))
    runs = sum(len(run) for run in re.findall("[가-힣]{2,}", korean))
    if foreign and runs > 0.5 * foreign:
        return "cp949"
    western = data.decode("cp1252", errors="replace")
    letters = re.findall(r"[À-ÖØ-öø-ÿŒœŠšŸŽž]+", western)
    others = len(
        re.findall(r"[^\x00-\x7fÀ-ÖØ-öø-ÿŒœŠšŸŽž€£¥§°²³µ·«»¿¡–—‘’“”„…‰½¼¾ºª\xa0×±®©™´`]", western)
    )
    long = sum(len(run) for run in letters if len(run) > 3)
    if long + others > 0.5 * (sum(map(len, letters)) + others):
        at = re.search(rb"[\x80-\xff]", data)
        line = data.count(b"\n", 0, at.start() if at else 0) + 1
        raise DataError(
            f"{name} is in no encoding that is known here (UTF-8, UTF-16, cp949, Latin-1, cp1252): line {line} is the first that "
            "shows it. Write it as UTF-8. Nothing was done.",
            line=line,
        )
    return "cp1252" if _reads(data, "cp1252") else "latin-1"


def in_utf8(data: bytes, encoding: str, name: str, *, is_judged: bool = False) -> bytes:
    """The text in UTF-8 without a mark.

    Args:
        is_judged: `judge` found this encoding in these bytes.

    Raises:
        DataError: it is not in that encoding.
    """
    if is_judged and encoding == "utf-8":
        return data.removeprefix(MARK)
    if not encoding.lower().replace("_", "-").startswith("utf-16"):
        no_binary(data, name)
    if encoding.lower().replace("_", "-") in ("utf-8", "utf8", "utf-8-sig"):
        encoding, data = "utf-8", data.removeprefix(MARK)
    try:
        text = data.decode(encoding)
        return data if encoding == "utf-8" else text.removeprefix("\ufeff").encode()
    except UnicodeError as error:
        start = getattr(error, "start", 0)
        line = data.count(b"\n", 0, start) + 1
        raise DataError(
            f"{name} is not {encoding} in line {line}: {getattr(error, 'reason', error)}. Set data.source.encoding, or write it in one "
            "encoding. Nothing was done.",
            line=line,
        ) from error
    except LookupError as error:
        raise DataError(
            f"There is no encoding {encoding!r}. Set data.source.encoding. Nothing was done."
        ) from error


def no_binary(data: bytes, name: str) -> None:
    """Stop at a NUL byte: no text has one.

    Raises:
        DataError: there is one; says in which line.
    """
    at = data.find(b"\0")
    if at >= 0:
        line = data.count(b"\n", 0, at) + 1
        raise DataError(
            f"{name} holds a NUL byte at line {line}: it is no text table. Nothing was done.",
            line=line,
        )


def _reads(data: bytes, encoding: str) -> bool:
    try:
        data.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True


def _wide(data: bytes) -> str:
    """UTF-16 without a mark: plain letters leave a zero in every second byte."""
    head = data[:4096]
    if len(data) % 2 or head.count(0) < 0.3 * len(head):
        return ""
    for encoding, first in (("utf-16-le", 1), ("utf-16-be", 0)):
        if head[first::2].count(0) > 0.6 * len(head) / 2 and not head[1 - first :: 2].count(0):
            return encoding if _reads(data, encoding) else ""
    return ""


def _one_encoding(data: bytes, name: str) -> None:
    """Stop where most of the text is UTF-8 and some lines are not."""
    marked = data.decode("utf-8", errors="surrogateescape")
    broken = re.findall("[\udc80-\udcff]", marked)
    n_right = len(re.findall("[\x80-\ud7ff\ue000-\U0010ffff]", marked))
    if n_right > len(broken):
        first = next(re.finditer("[\udc80-\udcff]", marked)).start()
        line = marked.count("\n", 0, first) + 1
        raise DataError(
            f"{name} is in two encodings: UTF-8, but not in line {line} ({len(broken)} bytes are wrong). Write it in one. "
            "Nothing was done.",
            line=line,
        )
