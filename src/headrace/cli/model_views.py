"""What ``headrace models`` prints: tables for people, JSON for machines."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from headrace.app.registry.pushing import Pushed
from headrace.app.registry.stored_versions import Verdict
from headrace.app.settings.quantities import format_size
from headrace.control.registry import Model, Story
from headrace.core.versions import ModelLine, TrackedModel, TrustGrant, Version, VersionView
from headrace.store.artifacts import Collected


def print_pushed(pushed: Sequence[Pushed], as_json: bool) -> None:
    if as_json:
        return _json(
            [{"version": _version(entry.version), "runnable": entry.runnable, "notes": entry.notes} for entry in pushed]
        )
    for entry in pushed:
        version = entry.version
        typer.echo(f"{version.ref}  {_format(version)}  {format_size(version.size)}  {version.draft.artifact.digest}")
        for note in entry.notes:
            typer.secho(f"  {note}", fg="yellow")
        if not entry.runnable:
            typer.secho(
                f"  it brings code along; to let it run, vouch for it: headrace models trust {version.ref}", fg="yellow"
            )
    return None


def print_models(models: Sequence[ModelLine], as_json: bool) -> None:
    if as_json:
        return _json(
            [{"name": m.name, "versions": m.versions, "newest": m.newest, "aliases": m.aliases} for m in models]
        )
    if not models:
        typer.echo("no models yet; begin with: headrace models push fraud model.onnx")
        return None
    table = _table("model", "versions", "newest", "format", "pushed", "aliases")
    for model in models:
        aliases = ", ".join(f"{alias}→{number}" for alias, number in model.aliases.items())
        table.add_row(
            model.name,
            str(model.versions),
            str(model.newest),
            _kind(model.format, model.flavor),
            _time(model.pushed_at),
            aliases,
        )
    return _show(table)


def print_model(model: Model, story: Story, as_json: bool) -> None:
    if as_json:
        return _json(
            {
                "name": model.name,
                "versions": [_version(version) for version in model.versions],
                "aliases": model.aliases,
                "story": story,
            }
        )
    table = _table("version", "aliases", "format", "size", "pushed", "by", "metrics")
    for version in reversed(model.versions):
        provenance = version.draft.provenance
        table.add_row(
            str(version.number),
            ", ".join(model.aliases_of(version.number)),
            _format(version),
            format_size(version.size),
            _time(provenance.at),
            provenance.who,
            ", ".join(f"{name} {value:g}" for name, value in provenance.metrics.items()),
        )
    _show(table)
    for move in story.aliases:
        typer.echo(f"{_time(move.at)}  {move.alias}: {move.before or '-'} → {move.version or '-'}  {move.who}")
    return None


def print_version(view: VersionView, as_json: bool) -> None:
    version, aliases, trust = view.version, view.aliases, view.trust
    if as_json:
        return _json(_version(version) | {"aliases": aliases, "trust": trust})
    draft, provenance = version.draft, version.draft.provenance
    rows = {
        "version": version.ref,
        "aliases": ", ".join(aliases),
        "format": _format(version),
        "about": _pairs(draft.artifact.details),
        "digest": draft.artifact.digest,
        "pushed": f"{_time(provenance.at)} by {provenance.who}",
        "source": provenance.source,
        "tracked": _tracked(provenance.tracked),
        "commit": provenance.git_sha or "",
        "code": _code(version, trust),
        "metrics": _pairs(provenance.metrics),
        "params": _pairs(provenance.tracked.params if provenance.tracked else {}),
        "tags": _pairs(provenance.tracked.tags if provenance.tracked else {}),
        "metadata": _pairs(provenance.metadata),
        "packages": _pairs(provenance.packages),
        "runs in": "an environment of its own" if draft.requirements is not None else "",
    }
    for name, text in rows.items():
        if text:
            typer.echo(f"{name:<9} {text}")
    for warning in draft.artifact.warnings:
        typer.secho(f"{'warning':<9} {warning}", fg="yellow")
    for file in draft.files:
        typer.echo(f"{'file':<9} {file.path}  {format_size(file.size)}")
    return None


def print_alias(model: str, alias: str, version: Version | None, as_json: bool) -> None:
    number = None if version is None else version.number
    if as_json:
        return _json({"model": model, "alias": alias, "version": number})
    return typer.echo(f"{model}@{alias} is removed" if version is None else f"{model}@{alias} → {version.ref}")


def print_trust(version: Version, trust: TrustGrant | None, as_json: bool) -> None:
    if as_json:
        return _json({"version": version.ref, "trust": trust})
    return typer.echo(f"{version.ref}  {version.draft.artifact.digest}  {_code(version, trust)}")


def print_verdicts(verdicts: Sequence[Verdict], as_json: bool) -> None:
    if as_json:
        return _json([{"version": v.version.ref, "ok": not v.problems, "problems": v.problems} for v in verdicts])
    for verdict in verdicts:
        good = not verdict.problems
        typer.secho(f"{'✓' if good else '✗'} ", fg="green" if good else "red", nl=False)
        typer.echo(f"{verdict.version.ref}  {len(verdict.version.draft.files)} files")
        for problem in verdict.problems:
            typer.echo(f"    {problem}")
    return None


def print_deleted(versions: Sequence[Version], as_json: bool) -> None:
    if as_json:
        return _json({"deleted": [version.ref for version in versions]})
    for version in versions:
        typer.echo(f"{version.ref} is deleted")
    return typer.echo("their files go with: headrace models gc")


def print_pulled(version: Version, target: Path, as_json: bool) -> None:
    entry = str(target / version.draft.artifact.path)
    if as_json:
        return _json({"version": version.ref, "folder": str(target), "model": entry})
    return typer.echo(f"{version.ref} → {entry}")


def print_collected(collected: Collected, dry_run: bool, as_json: bool) -> None:
    if as_json:
        return _json({"files": collected.blobs, "bytes": collected.size, "dry_run": dry_run})
    verb = "would be removed" if dry_run else "removed"
    return typer.echo(f"{collected.blobs} files, {format_size(collected.size)} {verb}")


def _version(version: Version) -> dict[str, Any]:
    return {"ref": version.ref, "number": version.number, **msgspec.to_builtins(version.draft)}


def _format(version: Version) -> str:
    artifact = version.draft.artifact
    return _kind(artifact.format.value, artifact.flavor)


def _kind(format: str, flavor: str | None) -> str:
    return format if flavor is None else f"{format} ({flavor})"


def _code(version: Version, trust: TrustGrant | None) -> str:
    if not version.draft.code_bearing:
        return ""
    what = "its packages too" if version.draft.requirements is not None else ""
    if trust is None:
        return "not trusted: it will not be loaded"
    return ", ".join(filter(None, [f"trusted by {trust.who}", _time(trust.at), what]))


def _tracked(tracked: TrackedModel | None) -> str:
    if tracked is None:
        return ""
    return f"{tracked.uri} at {tracked.server}{f', run {tracked.run_id}' if tracked.run_id else ''}"


def _pairs(values: dict[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in values.items())


def _time(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def _table(*columns: str) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _show(table: Table) -> None:
    console = Console()
    console.print(table) if console.is_terminal else Console(width=200).print(table)


def _json(document: Any) -> None:
    sys.stdout.write(msgspec.json.encode(document).decode() + "\n")
