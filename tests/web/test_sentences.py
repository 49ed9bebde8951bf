"""What the service says of its parts, in Russian: every reason and every cure that it can give, and nothing else."""

# ruff: noqa: RUF001 - Russian letters look like others

import ast
import inspect
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from PIL import Image

from webpd.convert import jpeg, png, pool, starts
from webpd.ledger import database
from webpd.redis import faults, link
from webpd.service import condition, guard, hint_socket
from webpd.watch import health
from webpd.web.page import texts
from webpd.web.page.texts import Phrasebook, phrasebook

PAIRS = tomllib.loads((Path(texts.__file__).parent / "texts" / "ru.sentences.toml").read_text("utf-8"))
X = "7"
"""Stands for whatever a sentence is told of."""
JOINED = f"{X}; {X}"

# Of parts that are well, or not wanted, the page tells in words of its own; the backlog has its own place there.
NOT_SHOWN = {
    "watched by 7, 7 images",
    "inotify and polling",
    "what other hosts find in it is converted",
    "7 processes",
    "is written",
    "begun anew: a damaged one was set aside as 7, and its history is lost",
    "check the disk (`dmesg`), and remove the one set aside",
    "WEBPD_REDIS_URL is not set",
    "WEBPD_HINT_SOCKET is off",
    "nginx can tell of images at 7",
    "the role work leaves them to who watches",
    "the role 7 needs none",
    "the role watch leaves conversion to other hosts",
    "the role work remembers nothing",
    "7 images wait, 7 are in work",
    ", the oldest for 7 s",
    "; the rate limit has held images back for 7 s in all",
}


def filled(form: str) -> str:
    return re.sub(r"\{\w+\}", X, form)


def literals(node: ast.AST, silent: set[ast.AST]) -> Iterator[str]:
    """Yield the texts below a node, but for what is below the silent ones, with ``X`` for what is filled in."""
    if node in silent:
        return
    if isinstance(node, ast.JoinedStr):
        yield "".join(str(part.value) if isinstance(part, ast.Constant) else X for part in node.values)
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield filled(node.value)
    else:
        for child in ast.iter_child_nodes(node):
            yield from literals(child, silent)


def sentences(module: ModuleType, within: str = "") -> set[str]:
    """Return all that a module says: its texts of two words and more that are no documentation, log line or error.

    ``within`` is the attribute that takes them, "" for all that there are.
    """
    tree: ast.AST = ast.parse(inspect.getsource(module))
    silent: set[ast.AST] = {
        node
        for node in ast.walk(tree)
        if (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))
        or (isinstance(node, ast.Call) and ast.unparse(node.func).startswith("_log."))
        or isinstance(node, ast.Raise)
    }
    places = [tree]
    if within:
        assigned = [node for node in ast.walk(tree) if isinstance(node, ast.Assign)]
        places = [node.value for node in assigned if any(within in ast.unparse(target) for target in node.targets)]
    found = {text for place in places for text in literals(place, silent)}
    return {text for text in found if re.search(r"[a-z]+ [a-z0-9]", text)}


def raised(module: ModuleType) -> set[str]:
    """Return what the errors of a module say."""
    tree = ast.parse(inspect.getsource(module))
    return {text for node in ast.walk(tree) if isinstance(node, ast.Raise) for text in literals(node, set())}


def cut(text: str, at: str = ": ") -> list[str]:
    """Return reason and cure of a fault as ``service/condition.py`` tells them apart."""
    return [part for part in text.partition(at) if part not in {"", at}]


def all_said() -> Iterator[str]:
    """Yield every reason and every cure that the page may have to show."""
    yield from sentences(condition) - NOT_SHOWN - {f"{X} One more is tried within a minute."}
    yield f"mount {X}: {X}"
    for text in sentences(health):
        yield from cut(text)
    yield from (text.removeprefix(f"{X}: ") for text in sentences(guard, within="what"))
    yield from cut(f"can't be asked ({X}): raise `ulimit -n` and `ulimit -u`")
    yield from sentences(guard, within="cure")
    answers = {*map(filled, faults._ANSWERS.values())}
    for text in {*map(filled, sentences(faults))} - {"user executing the script"}:
        yield from cut(f"{text} ({X})" if text in answers else text)
    yield from sentences(link, within="_state")
    (start,) = sentences(starts, within="trouble")
    reason, cure = cut(start, ". ")
    yield from (reason, f"{cure} One more is tried within a minute.")
    yield from sentences(database, within="fault")
    yield f"{X}: can't be listed: {X}"
    yield hint_socket._ELSE
    for text in raised(hint_socket):
        path, reason, cure = text.split(": ", 2)
        yield from (f"{path}: {reason}", cure)


def of_images() -> set[str]:
    """Return what is said of images that fail; what Pillow says in its own words is among it."""
    found = {
        text for module in (jpeg, png, pool, Image) for text in literals(ast.parse(inspect.getsource(module)), set())
    }
    return {text.removesuffix("; upload it again") for text in found}


def test_every_reason_and_every_cure_is_said_in_russian_too_and_nothing_that_is_never_said() -> None:
    pairs = [*map(filled, PAIRS)]
    of_parts = pairs[: pairs.index(f"the {X} is damaged: {X}")]
    assert {*of_parts} - {JOINED} == {*all_said()}
    assert {*pairs[len(of_parts) :]} - {f"the {X} is damaged: {X}"} <= of_images()


def test_the_russian_tells_of_the_same_things() -> None:
    for english, russian in PAIRS.items():
        assert english == russian or re.search("[а-яё]", russian) or english.startswith("mount "), english
        fields = [{*re.findall(r"\{\w+\}|WEBPD_\w+|`[^`{]*[`{]", text)} for text in (english, russian)]
        assert fields[0] - {"{health}"} == fields[1], english


def test_what_a_sentence_is_told_of_stays_as_it_is_or_is_said_in_russian_where_it_is_a_sentence() -> None:
    say = phrasebook("ru").say
    assert say("mount hung: the mount at /mnt/ü (fuse.sshfs) did not answer within 3 s") == (
        "точка монтирования /mnt/ü (fuse.sshfs) не ответила за 3 с"
    )
    assert say("polling was broken off: /srv/a (b): can't be listed: Permission denied") == (
        "обход прерван: /srv/a (b): не удаётся прочитать список файлов: Permission denied"
    )
    assert say(
        "2 folders can't be read in full; 1,000 times a folder could not be watched by inotify: it is polled"
    ) == (
        "папки, которые не читаются целиком: 2; сколько раз папку не удалось отслеживать через inotify: 1,000; "
        "изменения в ней находит обход"
    )
    assert say("the JPEG is damaged: not enough image data") == "JPEG повреждён: данных картинки не хватает"
    assert (
        say("refuses connections; this host goes on by itself")
        == "не принимает соединения; сервер работает сам по себе"
    )


def test_what_is_in_no_phrasebook_is_not_known_and_english_needs_none() -> None:
    assert phrasebook("ru").say("the moon is in the way") is None
    assert phrasebook("en").say("is starting: opens its database and asks the mounts") is None
    assert Phrasebook({"{one}; {rest}": "{one}; {rest}"}).say("neither; nor") == "neither; nor"
