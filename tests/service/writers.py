"""Programs that write into a tree as others do, run as processes of their own.

``bitrix`` writes thumbnails in two phases, ``burst`` writes many at once, ``rummage`` creates, overwrites, renames and
deletes at random until its standard input ends.
"""

import os
import random
import shutil
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import Image


def start(program: str, *arguments: object) -> subprocess.Popen[bytes]:
    """Start one of the programs of this module."""
    command = [sys.executable, "-m", "tests.service.writers", program, *map(str, arguments)]
    return subprocess.Popen(command, stdin=subprocess.PIPE)


def finish(process: subprocess.Popen[bytes]) -> None:
    """Tell the program that it is enough, and wait until it has ended well."""
    process.communicate(timeout=120)
    assert process.returncode == 0


def bitrix(original: str, root: str, count: str, longest: str) -> None:
    """Write thumbnails of 100 × 100 at the most, as CFile::ResizeImageFile does, many requests at a time.

    Each first is a copy of the original, for up to ``longest`` seconds; then it is deleted, and saved at its size.
    """
    chance = random.Random(1)
    pauses = [chance.uniform(0, float(longest)) for _ in range(int(count))]

    def one(number: int) -> None:
        target = Path(root, "iblock", f"{number % 7:03x}", "100_100_1", f"{number}.jpg")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(original, target)
        time.sleep(pauses[number])
        target.unlink()
        with Image.open(original) as image:
            image.thumbnail((100, 100))
            image.save(target, "JPEG", quality=95)

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(one, range(int(count))))


def burst(original: str, root: str, folders: str, each: str) -> None:
    """Write copies of a picture into new folders, as fast as can be."""
    data = Path(original).read_bytes()
    for folder in range(int(folders)):
        place = os.path.join(root, f"burst{folder:04}")
        os.makedirs(place)
        for number in range(int(each)):
            with open(os.path.join(place, f"{number}.jpg"), "wb") as file:
                file.write(data)


def rummage(pictures: str, root: str, seed: str, renames: str) -> None:
    """Do at random what people and programs do to images, in 12 folders, until standard input ends.

    ``renames`` is ``over`` where a rename may hit a name that was used before, else ``new``: where mtimes have whole
    seconds, two files of one second that change places can be told apart by their content alone.
    """
    chance = random.Random(seed)
    data = [path.read_bytes() for path in sorted(Path(pictures).iterdir())]
    ended = threading.Event()

    def listen() -> None:
        sys.stdin.read()
        ended.set()

    threading.Thread(target=listen, daemon=True).start()
    fresh = 0

    def place() -> str:
        return os.path.join(root, f"{chance.randrange(12)}", f"{seed}-{chance.randrange(12)}.jpg")

    while not ended.wait(chance.uniform(0, 0.1)):
        path, what = (
            place(),
            chance.choice(("create", "create", "overwrite", "overwrite", "replace", "rename", "delete")),
        )
        os.makedirs(os.path.dirname(path), exist_ok=True)
        try:
            if what == "rename":
                fresh += 1
                name = os.path.join(os.path.dirname(place()), f"{seed}-new{fresh}.jpg")
                os.rename(path, place() if renames == "over" else name)
            elif what == "delete":
                os.unlink(path)
            elif what == "replace":
                temporary = f"{path}.part"
                Path(temporary).write_bytes(chance.choice(data))
                os.rename(temporary, path)
            else:
                whole = chance.choice(data)
                half = len(whole) // 2
                with open(path, "xb" if what == "create" else "r+b") as file:
                    file.write(whole[:half])
                    file.flush()
                    time.sleep(chance.choice((0, 0, 0.2)))
                    file.write(whole[half:])
                    file.truncate()
        except (FileNotFoundError, FileExistsError):
            pass


if __name__ == "__main__":
    {"bitrix": bitrix, "burst": burst, "rummage": rummage}[sys.argv[1]](*sys.argv[2:])
