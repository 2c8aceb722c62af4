"""The commented TOML and the page of the documentation say what the tree says."""

import tomllib
from pathlib import Path

import pytest

from soth_mitm.config import MitmConfig
from soth_mitm.config.reference import default_toml, reference_markdown, toml_value
from soth_mitm.config.schema import Kind, Spec, entry_specs, specs

PAGE = Path(__file__).parents[2] / "docs" / "configuration.md"
ENTRIES = [key for spec in specs(MitmConfig).values() if spec.entry is not None for key in entry_specs(spec.entry, spec.name).values()]
REWRITE = "python -c \"from soth_mitm.config.reference import reference_markdown as page; print(page(), end='')\" > docs/configuration.md"


def test_default_toml_reads_back_as_the_defaults(tmp_path: Path) -> None:
    path = tmp_path / "defaults.toml"
    path.write_text(default_toml(), encoding="utf-8")
    assert MitmConfig.from_file(path, env=None) == MitmConfig()


@pytest.mark.parametrize("spec", ENTRIES, ids=lambda spec: spec.name)
def test_each_key_of_a_table_is_in_the_toml_with_its_meaning(spec: Spec) -> None:
    assert spec.key.doc in default_toml().replace("\n# ", " ")
    assert f"\n# {spec.field} = " in default_toml()


@pytest.mark.parametrize("spec", specs(MitmConfig).values(), ids=specs(MitmConfig))
def test_each_key_is_in_the_toml_with_its_meaning(spec: Spec) -> None:
    document = tomllib.loads(default_toml())
    section = document[spec.section] if spec.section else document
    default = spec.plain(spec.default)
    if spec.kind is Kind.ENTRIES:
        # a list that is written out cannot be added to by `[[credentials]]`
        assert default == [] and f"\n# [[{spec.name}]]\n" in default_toml()
        default = None
    assert section.get(spec.field) == default
    if default is None and spec.kind is not Kind.ENTRIES:
        assert f"\n# {spec.field} = {toml_value(spec.key.example)}\n" in default_toml()
    assert spec.key.doc in default_toml().replace("\n# ", " ")


def test_examples_in_the_toml_are_valid() -> None:
    lines = []
    for line in default_toml().splitlines():
        lines.append(
            line.removeprefix("# For example: ")
            if line.startswith("# For example: ")
            else line.removeprefix("# ")
            if " = " in line or line.startswith("# [[")
            else line
        )
    shown = [line for line in lines if not line.startswith("#") and not line.endswith((" = []", " = {}"))]
    config = MitmConfig.from_mapping(tomllib.loads("\n".join(shown)))
    config.validate()
    assert set(config.diff(MitmConfig())) == {name for name, spec in specs(MitmConfig).items() if spec.default in (None, [], {})}


def test_page_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == reference_markdown(), f"docs/configuration.md is not what the tree says; run: {REWRITE}"


def test_page_has_one_row_for_each_key() -> None:
    rows = [line for line in reference_markdown().splitlines() if line.startswith("| `")]
    assert [row.split("`")[1] for row in rows] == [spec.field for spec in [*specs(MitmConfig).values(), *ENTRIES]]
    assert all(row.count("|") == 4 for row in rows)
