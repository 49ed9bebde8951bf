"""The pages hold together: links lead somewhere, names exist, what is made from the code is as the code is."""

import re
from pathlib import Path

import pytest
import typer
from tools import settings_doc

from tests.docs.pages import CHECKOUT, anchors, commands, links, name_of, pages
from webpd.cli import cli
from webpd.settings import PREFIX, Settings

COMMANDS = set(typer.main.get_command(cli).commands)  # type: ignore[attr-defined]
# Variables that are no settings: where the file with these is, and what the files of deploy/ read themselves.
OTHERS = {"WEBPD_CONFIG"}
DEPLOYED = ("deploy/bitrix/*.php", ".env.example", "compose.yaml", "deploy/docker/*")


def variables(text: str) -> set[str]:
    return set(re.findall(rf"\b{PREFIX}[A-Z][A-Z_]*[A-Z]\b", text))


@pytest.mark.parametrize("page", pages(), ids=name_of)
def test_every_link_leads_to_a_file_and_a_heading_that_are_there(page: Path) -> None:
    for link in links(page):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, heading = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not heading or heading in anchors(target), link


@pytest.mark.parametrize("page", pages(), ids=name_of)
def test_every_page_that_is_named_as_code_is_there(page: Path) -> None:
    for name in re.findall(r"`((?:docs|deploy|bench|tools|tests|src)/[\w./-]+)`", page.read_text("utf-8")):
        assert name == "bench/out/" or (CHECKOUT / name).exists(), name


def test_every_page_of_docs_is_in_its_index_and_can_be_reached_from_the_readme() -> None:
    index = CHECKOUT / "docs" / "README.md"
    listed = {(index.parent / link.partition("#")[0]).resolve() for link in links(index)}
    assert {page for page in pages() if page.parent == index.parent and page != index} <= listed
    assert "docs/README.md" in set(links(CHECKOUT / "README.md"))


def test_settings_md_is_what_the_settings_make_of_it() -> None:
    assert settings_doc.FILE.read_text("utf-8") == settings_doc.page(), "python -m tools.settings_doc"


@pytest.mark.parametrize("page", pages(), ids=name_of)
def test_every_variable_that_a_page_names_is_a_setting(page: Path) -> None:
    settings = {PREFIX + name.upper() for name in Settings.model_fields}
    deployed = {
        name
        for pattern in DEPLOYED
        for path in CHECKOUT.glob(pattern)
        if path.is_file()
        for name in variables(path.read_text("utf-8"))
    }
    assert variables(page.read_text("utf-8")) - settings - deployed <= OTHERS


@pytest.mark.parametrize("page", pages(), ids=name_of)
def test_every_command_that_a_page_names_is_there(page: Path) -> None:
    named = set(re.findall(r"(?:`|bin/|[#$] )webpd ([a-z]+)\b", page.read_text("utf-8"), re.MULTILINE))
    assert named <= COMMANDS


@pytest.mark.parametrize("page", ["README.md", "README.ru.md"])
def test_the_readme_names_every_command(page: str) -> None:
    text = (CHECKOUT / page).read_text("utf-8")
    assert {name for name in COMMANDS if f"webpd {name}" not in text} == set()


@pytest.mark.parametrize("english", ["README.md", "docs/install.md"])
def test_the_russian_page_has_the_same_commands(english: str) -> None:
    assert list(commands(english.removesuffix(".md") + ".ru.md")) == list(commands(english))


def test_the_readme_is_short() -> None:
    assert len((CHECKOUT / "README.md").read_text("utf-8").splitlines()) < 200
