"""A look into a tree, bounded in time: how large it is, and what others have put beside the pictures."""

import os
import shlex
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from webpd.doctor import rights
from webpd.doctor.finding import Finding, Topic
from webpd.settings import Settings
from webpd.tree import naming, sidecar
from webpd.watch.mount import mount_of

_MOST_ENTRIES = 50_000
_MOST_PAIRS = 200
_SECONDS = 1.5
"""For the walk, and again for looking at sidecars."""
_MODULES: Sequence[str] = Settings.model_fields["exclude"].default
"""Where the trees of other WebP modules lie, by the end of their path."""


@dataclass(slots=True)
class Sample:
    """What a walk saw in its time: ``whole`` tells that it was all.

    ``folders`` hold originals, ``sidecars`` lie beside theirs, ``refused`` are folders that could not be listed.
    """

    directories: int = 0
    images: int = 0
    whole: bool = True
    folders: list[str] = field(default_factory=list)
    sidecars: list[str] = field(default_factory=list)
    refused: list[tuple[str, OSError]] = field(default_factory=list)


def walk(root: str, settings: Settings, seconds: float = _SECONDS) -> Sample:
    """Walk through the tree, breadth first, for so long at most. Names only: no file is asked for."""
    sample, exclude = Sample(), naming.Exclusion(settings.exclude)
    give_up, entries = time.monotonic() + seconds, 0
    waiting = deque([root])
    while waiting:
        if time.monotonic() > give_up or entries > _MOST_ENTRIES:
            sample.whole = False
            return sample
        folder = waiting.popleft()
        names: dict[str, bool] = {}
        try:
            with os.scandir(folder) as listed:
                for entry in listed:
                    names[entry.name] = entry.is_dir(follow_symlinks=False)
                    if len(names) % 1000 == 0 and time.monotonic() > give_up:
                        break
        except FileNotFoundError:
            continue
        except OSError as error:
            sample.refused.append((folder, error))
            continue
        entries += len(names)
        _note(sample, folder, names)
        below = (os.path.join(folder, name) for name, is_dir in names.items() if is_dir and not name.startswith("."))
        waiting.extend(path for path in below if path not in exclude)
    return sample


def _note(sample: Sample, folder: str, names: dict[str, bool]) -> None:
    originals = [name for name, is_dir in names.items() if not is_dir and naming.is_original(name)]
    sample.directories += 1
    sample.images += len(originals)
    if originals:
        sample.folders.append(folder)
    beside = (naming.sidecar_of(name) for name in originals)
    sample.sidecars += [os.path.join(folder, name) for name in beside if name in names]


def look(topic: Topic, root: str, sample: Sample, settings: Settings) -> Iterator[Finding]:
    """Look at what the walk saw."""
    least = "" if sample.whole else "at least "
    if sample.refused:
        yield _refused(topic, root, sample)
    else:
        seen = f"{least}{sample.images:,} images in {least}{sample.directories:,} folders"
        yield topic.ok("root.readable", f"{seen}: all could be listed")
    yield _foreign(topic, root, sample)
    yield from _modules(topic, root, settings)


def _refused(topic: Topic, root: str, sample: Sample) -> Finding:
    path, error = sample.refused[0]
    return topic.fault(
        "root.readable",
        f"{len(sample.refused):,} of {sample.directories + len(sample.refused):,} folders can't be listed, such as "
        f"{path}: {os.strerror(error.errno or 0)}",
        rights.grant(rights.owner_of(path), root, mount_of(root))
        if isinstance(error, PermissionError)
        else f"`ls -la {shlex.quote(path)}`, and `dmesg | tail`",
    )


def _foreign(topic: Topic, root: str, sample: Sample) -> Finding:
    pairs = sample.sidecars[:: max(1, len(sample.sidecars) // _MOST_PAIRS)][:_MOST_PAIRS]
    give_up, looked = time.monotonic() + _SECONDS, 0
    foreign: list[str] = []
    for path in pairs:
        if time.monotonic() > give_up:
            break
        looked += 1
        try:
            origin, status = sidecar.read(path)
        except OSError:
            continue  # gone, or no file: not a sidecar
        if origin is None or (isinstance(origin, sidecar.Origin) and not sidecar.belongs(origin, status)):
            foreign.append(path)
    if not foreign:
        return topic.ok("tree.foreign", f"{looked:,} sidecars looked at: all are ours")
    return topic.warning(
        "tree.foreign",
        f"{len(foreign):,} of {looked:,} sidecars looked at are not ours, such as {foreign[0]}: another "
        "module or program makes them too, and webpd leaves them alone",
        "turn that off (`crontab -l`, modules of the site); then "
        f"`webpd convert --overwrite-foreign {shlex.quote(root)}` makes them ours",
    )


def _modules(topic: Topic, root: str, settings: Settings) -> Iterator[Finding]:
    exclude = naming.Exclusion(settings.exclude)
    for path in _places(root):
        if not os.path.isdir(path):
            continue
        inside = path.startswith(os.path.join(root, "")) and path not in exclude
        converted = "webpd converts it as well" if inside else "webpd leaves it alone"
        first = f"`WEBPD_EXCLUDE={','.join((*settings.exclude, path.lstrip('/')))}`, and " if inside else ""
        yield topic.warning(
            "tree.other_module",
            f"another WebP module has its tree at {path}; {converted}, but its rules for the web server may hide ours",
            f"{first}uninstall that module in the site (Marketplace, Installed solutions) and its rules in nginx; then "
            f"`rm -r {shlex.quote(path)}` gives the room back",
        )


def _places(root: str) -> Iterator[str]:
    """Yield where the trees of other modules would be: in the root, beside it, and above."""
    for module in _MODULES:
        parent, _, name = module.rpartition("/")
        above = root
        while above != "/":
            if above.endswith(f"/{parent}"):
                yield os.path.join(above, name)
            above = os.path.dirname(above)
