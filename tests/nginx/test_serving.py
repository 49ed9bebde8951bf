"""What is reachable below a root and what is not, beside the locations that a Bitrix server has of its own."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import write
from tests.lab import sshfs_lab, wait_for
from tests.nginx.server import Answer, Nginx, printed

TAKES = {"accept": "image/avif,image/webp,*/*;q=0.8"}
JPEG, WEBP = b"\xff\xd8\xff" + b"j" * 900, b"RIFF" + b"w" * 400

# The kind of locations that servers of Bitrix sites have: regexes for whatever is static, and for /upload. Ours stands
# behind them.
STOCK = """
location / { add_header X-Location site; try_files $uri @bitrix; }
location @bitrix { return 418; }
location ~* ^.+\\.(jpg|jpeg|gif|png|webp|svg|js|css|mp3|ogg|mpe?g|avi|zip|gz|bz2?|rar|swf)$ {
    add_header X-Location stock;
    expires 7d;
}
location ~* ^/upload/ { add_header X-Location upload; }
location ~ \\.php$ { return 418; }
location ~ /\\.(?!well-known) { return 403; }
"""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return tmp_path / "www" / "upload" / "resize_cache"


def picture(path: Path, *, sidecar: bool = True) -> Path:
    """Write an original, and beside it its sidecar."""
    write(path, JPEG, 1e9)
    if sidecar:
        write(path.with_name(f"{path.name}.webp"), WEBP, 1e9)
    return path


def serve(tmp_path: Path, *roots: Path, http: str = "", server: str = "", **environment: str) -> Nginx:
    """Return a server for ``tmp_path/www`` with these directives before the printed ones."""
    printed_http, printed_server = printed(*roots, **environment)
    nginx = Nginx(tmp_path / "nginx", http + printed_http, f"{server}\n{printed_server}")
    (nginx.folder / "site").rmdir()
    (nginx.folder / "site").symlink_to(tmp_path / "www")
    assert nginx.check() == ""
    return nginx


def kind(answer: Answer) -> str:
    """Return which of the files it is, else the status."""
    return {JPEG: "original", WEBP: "sidecar"}.get(answer.body, str(answer.status))


@pytest.mark.parametrize("name", ["a.jpg", "a.JPG", "a.jpeg", "a.png", "a.PnG", "b c.jpg", "фото.jpg", "a'$1;{x}.jpg"])
def test_an_image_of_any_name_is_served_with_its_sidecar(tmp_path: Path, tree: Path, name: str) -> None:
    picture(tree / "iblock" / name)
    path = "/upload/resize_cache/iblock/" + "".join(f"%{byte:02X}" for byte in name.encode())
    with serve(tmp_path, tree) as nginx:
        assert kind(nginx.ask(path, **TAKES)) == "sidecar"
        original = nginx.ask(path)
        assert kind(original) == "original"
        assert original.type == ("image/png" if name.lower().endswith("png") else "image/jpeg")


def test_once_its_original_is_gone_a_sidecar_is_not_served(tmp_path: Path, tree: Path) -> None:
    original = picture(tree / "a.jpg")
    with serve(tmp_path, tree) as nginx:
        assert kind(nginx.ask("/upload/resize_cache/a.jpg", **TAKES)) == "sidecar"
        original.unlink()
        for headers in (TAKES, {}):
            for method in ("GET", "HEAD"):
                assert nginx.ask("/upload/resize_cache/a.jpg", method, **headers).status == 404


def test_nothing_but_images_is_reachable(tmp_path: Path, tree: Path) -> None:
    picture(tree / "a.jpg")
    closed = [
        "a.jpg.webp",
        ".webpd-host-1-2-3.tmp",
        ".hidden.jpg",
        ".hidden/a.jpg",
        "x/.git/deep/a.png",
        "a.php",
        "a.jpg.php",
        "a.html",
        "a.svg",
        "notes.txt",
        "x/line\nbreak/.hidden/a.jpg",
    ]
    for name in closed:
        if not (tree / name).exists():
            picture(tree / name)
    (tree / "folder.jpg").mkdir()
    with serve(tmp_path, tree, server=STOCK + "autoindex on;") as nginx:
        for name in [*closed, "", "x", "x/", "folder.jpg", "folder.jpg/", "nothing.jpg"]:
            path = f"/upload/resize_cache/{name}".replace("\n", "%0A")
            for headers in (TAKES, {}):
                assert nginx.ask(path, **headers).status == 404, name
        assert nginx.ask("/upload/resize_cache/x/../a.jpg", **TAKES).status == 200
        assert nginx.ask("/upload/resize_cache/../../../nginx/nginx.conf").status == 400


@pytest.mark.parametrize("ending", ["gif", "webp", "avif", "bmp", "GIF"])
def test_images_that_webpd_does_not_convert_are_served_as_they_are(tmp_path: Path, tree: Path, ending: str) -> None:
    picture(tree / f"a.{ending}", sidecar=False)
    with serve(tmp_path, tree) as nginx:
        answer = nginx.ask(f"/upload/resize_cache/a.{ending}", **TAKES)
        assert kind(answer) == "original"
        assert answer.type == f"image/{ending.lower()}"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_images_can_only_be_read(tmp_path: Path, tree: Path, method: str) -> None:
    picture(tree / "a.jpg")
    with serve(tmp_path, tree) as nginx:
        assert nginx.ask("/upload/resize_cache/a.jpg", method, **TAKES).status == 405


def test_the_stock_locations_of_bitrix_do_not_win_and_keep_the_rest(tmp_path: Path, tree: Path) -> None:
    picture(tree / "a.jpg")
    picture(tree.parent / "iblock" / "a.jpg")
    with serve(tmp_path, tree, server=STOCK + "expires 1d; add_header X-Server site;") as nginx:
        ours = nginx.ask("/upload/resize_cache/a.jpg", **TAKES)
        assert kind(ours) == "sidecar"
        assert ours.headers["X-Location"] is None
        assert ours.headers.get_all("Cache-Control") == ["max-age=2592000"]
        assert ours.headers["Expires"] is None
        theirs = nginx.ask("/upload/iblock/a.jpg", **TAKES)
        assert kind(theirs) == "original"
        assert theirs.headers["X-Location"] == "stock"


def test_folders_of_other_modules_are_left_to_the_site(tmp_path: Path, tree: Path) -> None:
    picture(tree / "webp" / "a.jpg")
    write(tree / "webp" / "b.css", b"css")
    write(tree / "deep" / "resize_cache" / "webp" / "c.txt", b"text")
    with serve(tmp_path, tree, server=STOCK) as nginx:
        answer = nginx.ask("/upload/resize_cache/webp/a.jpg", **TAKES)
        assert kind(answer) == "original"
        assert answer.headers["X-Location"] == "stock"
        assert kind(nginx.ask("/upload/resize_cache/webp/a.jpg.webp")) == "sidecar"
        assert nginx.ask("/upload/resize_cache/webp/b.css").body == b"css"
        assert nginx.ask("/upload/resize_cache/deep/resize_cache/webp/c.txt").body == b"text"


@pytest.mark.parametrize(
    ("pattern", "folder"),
    [
        ("drafts", "drafts"),
        ("drafts", "x/drafts"),
        ("d*", "x/drafts"),
        ("resize_cache/?rafts", "drafts"),
        ("upload/resize_cache/*/drafts", "x/drafts"),
        ("x/drafts", "x/drafts"),
        ("dra.fts", "dra.fts"),
    ],
)
def test_what_a_pattern_excludes_is_served_as_it_is(tmp_path: Path, tree: Path, pattern: str, folder: str) -> None:
    picture(tree / folder / "a.jpg")
    picture(tree / f"{folder}-not" / "a.jpg")
    write(tree / folder / "a.txt", b"text")
    with serve(tmp_path, tree, WEBPD_EXCLUDE=pattern) as nginx:
        assert kind(nginx.ask(f"/upload/resize_cache/{folder}/a.jpg", **TAKES)) == "original"
        assert nginx.ask(f"/upload/resize_cache/{folder}/a.txt").body == b"text"
        if "*" not in pattern.rpartition("/")[2]:
            assert kind(nginx.ask(f"/upload/resize_cache/{folder}-not/a.jpg", **TAKES)) == "sidecar"


@pytest.mark.parametrize("pattern", ["upload/resize_cache", "resize_cache", "DRAFTS", "drafts/"])
def test_a_pattern_excludes_no_more_than_for_the_service(tmp_path: Path, tree: Path, pattern: str) -> None:
    picture(tree / "x" / "a.jpg")
    with serve(tmp_path, tree, WEBPD_EXCLUDE=pattern) as nginx:
        assert kind(nginx.ask("/upload/resize_cache/x/a.jpg", **TAKES)) == "sidecar"


def test_with_the_open_file_cache_a_new_sidecar_and_a_deletion_are_seen_once_it_expires(
    tmp_path: Path, tree: Path
) -> None:
    cache = "open_file_cache max=100 inactive=1h; open_file_cache_valid 1s; open_file_cache_errors on;\n"
    original = picture(tree / "a.jpg", sidecar=False)
    path = "/upload/resize_cache/a.jpg"
    with serve(tmp_path, tree, http=cache) as nginx:
        assert kind(nginx.ask(path, **TAKES)) == "original"
        picture(original)
        wait_for(lambda: kind(nginx.ask(path, **TAKES)) == "sidecar", "the sidecar is served")
        assert kind(nginx.ask(path)) == "original"
        original.unlink()
        wait_for(lambda: nginx.ask(path, **TAKES).status == 404, "it is seen to be gone")
        wait_for(lambda: nginx.ask(path).status == 404, "it is seen to be gone")


def test_another_format_is_two_lines_more(
    tmp_path: Path, tree: Path, avif: Callable[[str, str], tuple[str, str]]
) -> None:
    picture(tree / "a.jpg")
    write(tree / "a.jpg.avif", b"avif", 1e9)
    picture(tree / "b.jpg")
    picture(tree / "c.jpg", sidecar=False)
    nginx = Nginx(tmp_path / "nginx", *avif(*printed(tree)))
    assert nginx.check() == ""
    with nginx:
        answer = nginx.ask("/upload/resize_cache/a.jpg", accept="image/avif,image/webp")
        assert (answer.body, answer.type) == (b"avif", "image/avif")
        assert kind(nginx.ask("/upload/resize_cache/a.jpg", accept="image/avif;q=0,image/webp")) == "sidecar"
        assert kind(nginx.ask("/upload/resize_cache/a.jpg", accept="image/*")) == "original"
        assert kind(nginx.ask("/upload/resize_cache/b.jpg", accept="image/avif,image/webp")) == "sidecar"
        missing = nginx.ask("/upload/resize_cache/c.jpg", accept="image/avif,image/webp")
        assert (kind(missing), missing.headers["Cache-Control"]) == ("original", "max-age=60")
        assert nginx.ask("/upload/resize_cache/a.jpg.avif").status == 404


@pytest.fixture
def avif() -> Callable[[str, str], tuple[str, str]]:
    """Return a function that adds what docs/nginx.md tells to add for AVIF."""
    text = (Path(__file__).parents[2] / "docs" / "nginx.md").read_text("utf-8")
    _, _, section = text.partition("## Another format")
    map_, _, rest = section.partition("```nginx\n")[2].partition("```")
    line = rest.partition("```nginx\n")[2].partition("```")[0].strip()

    def add(http: str, server: str) -> tuple[str, str]:
        before = next(row.strip() for row in server.splitlines() if "try_files" in row)
        # The name of the location is the administrator's own.
        return http + map_, server.replace(
            before, line.replace('"@webpd/upload/resize_cache"', before.split()[-1][:-1])
        )

    return add


def test_a_browser_gets_webp_exactly_when_it_says_so(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("accept")
    tree = folder / "www" / "upload" / "resize_cache"
    picture(tree / "a.jpg")
    spaces = st.sampled_from(["", " ", "\t", "  "])
    quality = st.sampled_from(["0", "0.", "0.0", "0.000", "0.001", "0.5", "1", "1.0", "0.01"])
    parameters = st.lists(st.sampled_from(["level=1", "q2=0", "a=b"]), max_size=2)
    ranges = st.tuples(
        st.sampled_from(["image/webp", "IMAGE/WebP", "image/webpx", "ximage/webp", "image/*", "*/*", "image/jpeg"]),
        parameters,
        st.none() | quality,
        spaces,
        spaces,
    )

    with serve(folder, tree) as nginx:

        @given(st.lists(ranges, min_size=1, max_size=5))
        def check(accepted: list[tuple[str, list[str], str | None, str, str]]) -> None:
            takes = any(type_.lower() == "image/webp" and (q is None or float(q) > 0) for type_, _, q, _, _ in accepted)
            written = ",".join(
                f"{left}{f'{right};{left}'.join([type_, *further, *([f'q={q}'] if q else [])])}{right}"
                for type_, further, q, left, right in accepted
            )
            answer = nginx.ask("/upload/resize_cache/a.jpg", accept=written)
            assert kind(answer) == ("sidecar" if takes else "original"), written

        check()


@pytest.mark.parametrize(
    "name", ["a b", "фото", 'quo"te', "it's", "back\\slash", "re.g+e(x)[1]{2}", "semi;#colon", "@x"]
)
def test_a_root_of_any_name_is_served(tmp_path: Path, name: str) -> None:
    tree = tmp_path / "www" / name / "pic tures"
    picture(tree / "x" / "a.jpg")
    picture(tree / "drafts" / "a.jpg")
    url = "/" + "".join(f"%{byte:02X}" for byte in name.encode()) + "/pic%20tures"
    with serve(tmp_path, tree, WEBPD_DOCUMENT_ROOT=str(tmp_path / "www"), WEBPD_EXCLUDE="drafts") as nginx:
        assert kind(nginx.ask(f"{url}/x/a.jpg", **TAKES)) == "sidecar"
        assert kind(nginx.ask(f"{url}/drafts/a.jpg", **TAKES)) == "original"
        assert nginx.ask(f"{url}/.a.jpg").status == 404


def test_a_root_that_holds_more_than_thumbnails_leaves_the_rest_to_the_site(tmp_path: Path) -> None:
    upload = tmp_path / "www" / "upload"
    others = {"iblock/price.pdf": 200, "film.mp4": 200, "a.gif": 200, "a.php": 200, ".secret/a.jpg": 200}
    for name in ["iblock/a.jpg", "resize_cache/b.PNG", *others, "resize_cache/webp/c.jpg", "drafts/d.jpg"]:
        picture(upload / name)
    picture(upload / "gone.jpg").unlink()
    http, server = printed(upload, WEBPD_EXCLUDE="upload/resize_cache/webp,drafts")
    nginx = Nginx(tmp_path / "nginx", http, server + STOCK)
    (nginx.folder / "site").rmdir()
    (nginx.folder / "site").symlink_to(tmp_path / "www")
    with nginx:
        for name in ("iblock/a.jpg", "resize_cache/b.PNG"):
            assert kind(nginx.ask(f"/upload/{name}", **TAKES)) == "sidecar"
            assert kind(nginx.ask(f"/upload/{name}")) == "original"
        assert nginx.ask("/upload/gone.jpg", **TAKES).status == 404
        for name, status in others.items():
            answer = nginx.ask(f"/upload/{name}", **TAKES)
            assert (answer.status, answer.headers["Vary"]) == (status, None), name
        for name in ("resize_cache/webp/c.jpg", "drafts/d.jpg"):
            answer = nginx.ask(f"/upload/{name}", **TAKES)
            assert (kind(answer), answer.headers["X-Location"]) == ("original", "stock")


def test_where_such_a_root_is_told_too_late_the_site_is_as_before(tmp_path: Path) -> None:
    upload = tmp_path / "www" / "upload"
    picture(upload / "a.jpg")
    picture(upload / "a.pdf")
    with serve(tmp_path, upload, server=f"location ^~ /upload/ {{ root {tmp_path}/www; }}") as nginx:
        assert kind(nginx.ask("/upload/a.jpg", **TAKES)) == "original"
        assert nginx.ask("/upload/a.pdf").status == 200


def test_several_roots_of_a_site_stand_in_one_part(tmp_path: Path) -> None:
    www = tmp_path / "www"
    one, other = www / "upload" / "resize_cache", www / "upload" / "photos"
    picture(one / "a.jpg")
    picture(other / "a.jpg", sidecar=False)
    with serve(tmp_path, one, other) as nginx:
        assert kind(nginx.ask("/upload/resize_cache/a.jpg", **TAKES)) == "sidecar"
        assert kind(nginx.ask("/upload/photos/a.jpg", **TAKES)) == "original"


def test_after_sshfs_has_reconnected_images_are_served_though_the_site_caches_open_files(tmp_path: Path) -> None:
    cache = "open_file_cache max=100 inactive=1h; open_file_cache_valid 1s;\n"
    with sshfs_lab(tmp_path / "lab") as lab:
        picture(lab.origin / "upload" / "resize_cache" / "a.jpg")
        http, server = printed(lab.mnt / "upload" / "resize_cache")
        assert "open_file_cache off;" in server
        with Nginx(tmp_path / "nginx", cache + http, server) as nginx:
            assert kind(nginx.ask("/upload/resize_cache/a.jpg", **TAKES)) == "sidecar"
            lab.kill_sshd()
            lab.start_sshd()
            file = os.open(lab.mnt / "upload" / "resize_cache" / "a.jpg.webp", os.O_RDONLY)
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)  # what the kernel has read hides what is lost
            os.close(file)
            assert kind(nginx.ask("/upload/resize_cache/a.jpg", **TAKES)) == "sidecar"
            assert kind(nginx.ask("/upload/resize_cache/a.jpg")) == "original"
