"""The table of settings covers every field once, and the page made from it is up to date."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from headrace.app.settings import docs as settings_docs
from headrace.app.settings.keys import BY_NAME, KEYS, STRUCTS, Form, Key, Section

COMPOSED = {
    *("models", "endpoints", "gateway", "deployment", "logs", "resources", "batching", "admission"),
    *("file", "location", "owns_state"),
}
"""Fields that are sections of their own, the models or policies of endpoints, or where those come from."""


def test_every_field_of_every_section_has_exactly_one_key() -> None:
    for section, struct in STRUCTS.items():
        fields = {f.name for f in msgspec.structs.fields(struct)}
        if section in (Section.SERVER, Section.DEPLOYMENT):
            fields -= COMPOSED
        keyed = [key.field for key in KEYS if key.section is section]
        assert sorted(keyed) == sorted(fields), section


def test_names_flags_and_variables_are_unique() -> None:
    flags = [key.flag for key in KEYS if key.flag]
    assert len(set(flags)) == len(flags)
    assert len({key.variable for key in KEYS}) == len(KEYS) == len(BY_NAME)


@pytest.mark.parametrize("key", KEYS, ids=lambda key: key.name)
def test_defaults_and_help_fit_the_kind(key: Key) -> None:
    assert key.help.endswith((".", ")"))
    if key.nullable:
        assert key.default is None
    elif key.kind.form is Form.SCALAR:
        assert key.kind.parse(key.show_default()) == key.default


def test_variables_have_the_documented_form() -> None:
    assert BY_NAME["batching.max_batch_size"].variable == "HEADRACE_BATCHING__MAX_BATCH_SIZE"
    assert BY_NAME["port"].variable == "HEADRACE_PORT"


def test_docs_page_is_in_sync() -> None:
    page = Path(__file__).parents[4] / "docs" / "settings.md"
    assert page.read_text() == settings_docs.render(), "run: python -m headrace.app.settings.docs > docs/settings.md"


def test_docs_page_names_every_key_variable_and_flag() -> None:
    text = settings_docs.render()
    for key in KEYS:
        assert f"`{key.name}`" in text
        assert f"`{key.variable}`" in text
        assert key.flag is None or f"`{key.flag}`" in text
