"""``headrace schema`` prints what editors check a file against."""

from __future__ import annotations

from typer.testing import CliRunner

from headrace.app.settings import schema as settings_schema
from headrace.cli.main import app


def test_it_prints_the_schema_and_nothing_else() -> None:
    for arguments in (["schema"], ["schema", "--json"]):
        result = CliRunner().invoke(app, arguments)
        assert (result.exit_code, result.stdout, result.stderr) == (0, settings_schema.document(), "")
