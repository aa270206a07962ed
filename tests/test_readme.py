"""What the README shows is what there is."""

import re
import tomllib
from pathlib import Path

from harness.cli import app
from harness.config import profile_names

TOP = Path(__file__).resolve().parent.parent
README = (TOP / "README.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_the_example_of_the_readme_is_the_tested_fixture():
    assert (TOP / "tests" / "foreign" / "minigru.py").read_text() in blocks("python")


def test_the_entry_point_of_the_readme_is_the_fixtures():
    (shown,) = blocks("toml")
    told = tomllib.loads(shown)["project"]["entry-points"]["quasibench.impls"]
    (file,) = (TOP / "tests" / "foreign").glob("*.dist-info/entry_points.txt")
    assert all(f"{name} = {value}" in file.read_text() for name, value in told.items())


def test_every_command_and_profile_of_the_readme_exists():
    known = {info.name or info.callback.__name__ for info in app.registered_commands}
    told = set(re.findall(r"^quasibench (\w+)", README, re.MULTILINE))
    assert told
    assert told <= known
    assert all(f"`{name}`" in README for name in profile_names())


def test_files_and_folders_of_the_readme_exist():
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", README) if "://" not in link]
    assert links
    assert [link for link in links if not (TOP / link).exists()] == []


def test_two_commands_set_everything_up():
    assert set(re.findall(r"python3 noxfile\.py -s (\w+)", README)) == {"bench", "tests"}
