"""The file for Bitrix' init.php under real PHP: what it tells, and that a page never notices it."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.bitrix.listener import TOKEN, HintServer, hint_server
from tests.bitrix.shop import OTHER_TOKEN, PHOTO, Shop, url_of
from tests.conftest import write
from tests.service.driver import Service


@pytest.fixture
def shop(shop: Shop) -> Shop:
    """The shop, in no hurry."""
    shop.have_time()
    return shop


def test_all_thumbnails_of_a_page_are_told_in_one_hint_after_the_visitor_has_it(shop: Shop, server: HintServer) -> None:
    names = [("iblock/0ab", f"{number}.jpg") for number in range(60)]
    page = shop.page(url_of(server.server_port), resize=shop.resize(*names))
    told = [f"/upload/resize_cache/{subdir}/120_120_1/{name}" for subdir, name in names]
    assert server.hints == [told]
    assert page.text == "\n".join([*told, "page", "printed at the end", "visitor has it"])
    assert page.finished


def test_names_arrive_as_they_are(shop: Shop, server: HintServer) -> None:
    names = ["Кошка на окне.JPG", "a b%20c+d&e.png", 'quote"\\back.jpeg', "🐈.jpg", "a'; --.jpg"]
    shop.page(url_of(server.server_port), resize=shop.resize(*(("iblock/фото", name) for name in names)))
    assert server.paths == [f"/upload/resize_cache/iblock/фото/120_120_1/{name}" for name in names]


def test_only_thumbnails_are_told_of(shop: Shop, server: HintServer) -> None:
    missing = [["iblock/gone", "photo.jpg", 120, str(shop.thumbnail)]]  # Bitrix gives the page the original then
    page = shop.page(url_of(server.server_port), resize=missing + shop.resize(("iblock/0ab", "drawing.gif"), PHOTO))
    assert "/upload/iblock/gone/photo.jpg\n" in page.text
    assert server.paths == ["/upload/resize_cache/iblock/0ab/120_120_1/photo.jpg"]


def test_a_page_without_new_thumbnails_asks_nobody(shop: Shop, server: HintServer) -> None:
    resize = shop.resize(PHOTO)
    shop.page(url_of(server.server_port), resize=resize)
    page = shop.page(url_of(server.server_port), resize=resize)
    assert len(server.hints) == 1
    assert not page.finished


def test_other_modules_are_asked_as_before(shop: Shop, server: HintServer) -> None:
    """Bitrix stops at the first handler that answers true: ours never does, and it may not be reached."""
    shop.page(url_of(server.server_port), resize=shop.resize(("iblock/0ab", "one.jpg")), first=None)
    shop.page(url_of(server.server_port), resize=shop.resize(("iblock/0ab", "two.jpg")), first=True)
    assert [path[-7:] for path in server.paths] == ["one.jpg"]


def test_deleted_thumbnails_are_told_where_their_webp_is_left(shop: Shop, server: HintServer) -> None:
    images = (PHOTO, ("iblock/0ab", "other.jpg"))
    resize = [*shop.resize(*images), *shop.resize(*images, width=60), *shop.resize(PHOTO, width=30)]
    shop.page(None, resize=resize)
    folder = shop.cache / "iblock" / "0ab"
    write(folder / "120_120_1" / "photo.jpg.webp", b"sidecar")
    page = shop.page(url_of(server.server_port), delete=[PHOTO])
    assert server.paths == ["/upload/resize_cache/iblock/0ab/120_120_1/photo.jpg"]
    assert {path.name for path in (folder / "120_120_1").iterdir()} == {"other.jpg", "photo.jpg.webp"}
    assert [path.name for path in (folder / "60_60_1").iterdir()] == ["other.jpg"]
    assert not (folder / "30_30_1").exists()
    assert page.finished


def test_a_page_that_deletes_what_had_no_thumbnails_is_fine(shop: Shop, server: HintServer) -> None:
    shop.upload(*PHOTO)
    assert shop.page(url_of(server.server_port), delete=[PHOTO, ("iblock/none", "none.jpg")]).text.startswith("page\n")
    assert server.hints == []


def test_an_import_of_thousands_sends_hints_that_the_service_takes(shop: Shop, server: HintServer) -> None:
    names = [("iblock/" + "д" * 60, f"{number}.jpg") for number in range(1200)]
    shop.page(url_of(server.server_port), resize=shop.resize(*names))
    assert len(server.paths) == 1200
    assert len(server.hints) > 2  # each of them was within the limits, or the server had not taken it


def test_names_of_any_bytes_arrive(shop: Shop, server: HintServer) -> None:
    code = r"""
        foreach (["\xc0.jpg", "new\nline.jpg", "\xff\n\"\\.jpg"] as $name) tell("/upload/resize_cache/a/1_1_1/$name");
    """
    shop.run(code, server.server_port)
    names = [b"\xc0.jpg", b"new\nline.jpg", b'\xff\n"\\.jpg']
    assert server.paths == [os.fsdecode(b"/upload/resize_cache/a/1_1_1/" + name) for name in names]


def test_a_site_in_cp1251_tells_the_names_that_the_files_have(shop: Shop, server: HintServer) -> None:
    """There names are cp1251 in the database and for PHP, and UTF-8 in the file system, as Bitrix converts them."""
    folder = "/upload/resize_cache/iblock/фото/1_1_1"
    made, deleted = f"{folder}/новая.jpg", f"{folder}/старая.jpg"
    write(shop.root / f"{deleted[1:]}.webp", b"sidecar")
    code = f"""
        class CBXVirtualIo
        {{
            static function GetInstance() {{ return new self; }}
            function GetPhysicalName($name) {{ return iconv('CP1251', 'UTF-8', $name); }}
        }}
        $_SERVER['DOCUMENT_ROOT'] = '{shop.root}';
        $site = function ($text) {{ return iconv('UTF-8', 'CP1251', $text); }};
        tell($site('{made}'));
        $file = ['SUBDIR' => $site('iblock/фото'), 'FILE_NAME' => $site('старая.jpg')];
        foreach (GetModuleEvents('main', 'OnPhysicalFileDelete') as $event) ExecuteModuleEventEx($event, [$file]);
    """
    shop.run(code, server.server_port)
    assert server.paths == [made, deleted]


def test_names_arrive_where_php_counts_characters_for_bytes(shop: Shop, server: HintServer) -> None:
    """As PHP 7 does with mbstring.func_overload=2, which Bitrix asked for until 2020: it exchanges these functions."""
    shop.change_handler(r"\b(strlen|substr|strpos)\(", r"mb_\1(")
    code = """
        function characters($text) { return preg_split('//u', $text, -1, PREG_SPLIT_NO_EMPTY); }
        function mb_strlen($text) { return count(characters($text)); }
        function mb_substr($text, $from) { return implode('', array_slice(characters($text), $from)); }
        function mb_strpos($text, $part) { return strpos($text, $part); }
        tell('/upload/resize_cache/iblock/фото/1_1_1/кошка.jpg');
    """
    shop.run(code, server.server_port)
    assert server.paths == ["/upload/resize_cache/iblock/фото/1_1_1/кошка.jpg"]


def test_what_runs_for_long_sends_hints_all_along(shop: Shop, server: HintServer) -> None:
    shop.run(
        "foreach (['a', 'b', 'c'] as $name) { tell(\"/upload/resize_cache/a/1_1_1/$name.jpg\"); later(); }",
        server.server_port,
    )
    folder = "/upload/resize_cache/a/1_1_1"
    assert server.hints == [[f"{folder}/a.jpg"], [f"{folder}/b.jpg"], [f"{folder}/c.jpg"]]


def test_where_only_the_new_events_of_bitrix_are_there_they_are_used(shop: Shop, server: HintServer) -> None:
    code = (
        "namespace Bitrix\\Main {class EventManager {public $handlers=[];"
        "public static function getInstance(){static $one; return $one ?? $one=new self;}"
        "public function addEventHandlerCompatible($module,$event,$handler)"
        '{$this->handlers["$module:$event"]=$handler;}'
        "}} namespace {"
        f"define('WEBPD_HINT_URL','{url_of(server.server_port)}');define('WEBPD_TOKEN','{TOKEN}');"
        f"require '{shop.handler}';"
        "$handlers=\\Bitrix\\Main\\EventManager::getInstance()->handlers;"
        "$handlers['main:OnAfterResizeImage']([],[],null,'/upload/resize_cache/a/1_1_1/a.jpg',null,null);"
        "echo implode(' ',array_keys($handlers));}"
    )
    done = subprocess.run(("php", "-n", "-r", code), capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("main:OnAfterResizeImage main:OnPhysicalFileDelete", "")
    assert server.paths == ["/upload/resize_cache/a/1_1_1/a.jpg"]


def test_a_wrong_token_is_silent(shop: Shop, server: HintServer) -> None:
    page = shop.page(url_of(server.server_port), token=OTHER_TOKEN, resize=shop.resize(PHOTO))
    assert page.text.endswith("printed at the end\nvisitor has it")
    assert server.refused == 1


def test_a_new_thumbnail_is_converted_at_once_though_nobody_would_look_for_it(shop: Shop, service: Service) -> None:
    names = [("iblock/0ab", "Кошка на окне.jpg"), ("iblock/0ab", "a b.JPG"), PHOTO]
    page = shop.page(url_of(service.health_port), resize=shop.resize(*names))
    assert page.text.endswith("visitor has it")
    folder = shop.cache / "iblock" / "0ab" / "120_120_1"
    for _, name in names:
        service.wait_until((folder / f"{name}.webp").exists, f"{name}.webp")


def test_the_service_looks_at_what_a_deleted_thumbnail_left(shop: Shop, service: Service) -> None:
    shop.page(None, resize=shop.resize(PHOTO))
    write(shop.cache / "iblock" / "0ab" / "120_120_1" / "photo.jpg.webp", b"sidecar")
    shop.page(url_of(service.health_port), delete=[PHOTO])
    taken = 'webpd_hints_total{result="taken",source="http"}'
    service.wait_until(lambda: service.metrics().get(taken) == 1, "the hint to be taken")


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A key, and a certificate of its own for cdn.example.test, in one file."""
    file = tmp_path / "certificate.pem"
    kind = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-noenc")
    key = ("openssl", "req", "-x509", *kind, "-days", "2")
    subject = ("-subj", "/CN=cdn.example.test", "-addext", "subjectAltName=DNS:cdn.example.test")
    subprocess.run((*key, *subject, "-keyout", str(file), "-out", f"{file}.crt"), check=True, capture_output=True)
    write(file, file.read_bytes() + Path(f"{file}.crt").read_bytes())
    return file


def test_hints_go_by_tls_to_whom_the_certificate_names_alone(shop: Shop, certificate: Path) -> None:
    trusted = ("-d", f"openssl.cafile={certificate}")
    with hint_server(certificate) as server:
        for host, options in (
            ("cdn.example.test", trusted),
            ("other.example.test", trusted),
            ("cdn.example.test", ()),
        ):
            resize = shop.resize(("iblock/0ab", f"{len(options)}-{host}.jpg"))
            url = url_of(server.server_port, "https", host)
            page = shop.page(url, *options, address="127.0.0.1", resize=resize)
            assert page.text.endswith("visitor has it")
    assert server.paths == ["/upload/resize_cache/iblock/0ab/120_120_1/2-cdn.example.test.jpg"]
