"""The command line: ``headrace COMMAND``.

Commands are modules that are imported when they are run, so that ``headrace --help`` needs none of them. Each module
has ``app``, a Typer application with one command or a group of them, or several that are named here.
"""

from __future__ import annotations

import importlib
from typing import Annotated, Any

import typer
import typer.core

COMMANDS: dict[str, tuple[str, str]] = {
    "serve": ("headrace.cli.serve", "Serve models over REST and gRPC."),
    "predict": ("headrace.cli.predict", "Send data to a served model and print what it answers."),
    "models": ("headrace.cli.models", "Keep versions of models: push, list, alias, verify, pull."),
    "environments": ("headrace.cli.environments", "Look at environments of versions and remove them."),
    "keys": ("headrace.cli.keys", "Make, rotate and revoke API keys."),
    "events": ("headrace.cli.events", "Show who changed what in the registry, when and why."),
    "plan": ("headrace.cli.endpoints:plan_app", "Show what applying a settings file would change."),
    "apply": ("headrace.cli.endpoints:apply_app", "Make what runs what a settings file says."),
    "deploy": ("headrace.cli.deploy", "Put a version of the registry under an endpoint."),
    "export-config": ("headrace.cli.endpoints:export_app", "Write what runs as a settings file."),
    "endpoints": ("headrace.cli.endpoints:endpoints_app", "List what is served."),
    "traffic": ("headrace.cli.endpoints:traffic_app", "Spread the requests of an endpoint by hand."),
    "scale": ("headrace.cli.endpoints:scale_app", "Change the number of replicas."),
    "restart": ("headrace.cli.endpoints:restart_app", "Replace replicas by fresh ones, without a gap."),
    "drain": ("headrace.cli.endpoints:drain_app", "Give the traffic of a deployment to the others."),
    "pause": ("headrace.cli.endpoints:pause_app", "Refuse the requests of an endpoint for a while."),
    "resume": ("headrace.cli.endpoints:resume_app", "Take them again."),
    "rollout": ("headrace.cli.rollout", "Move an endpoint to another version, in judged steps."),
    "schema": ("headrace.cli.schema", "Print the JSON Schema of headrace.yaml, for editors."),
    "experiment": ("headrace.cli.experiments", "Compare deployments by what comes of their answers; bandits."),
    "feedback": ("headrace.cli.experiments:feedback_app", "Tell what came of a request, for experiments."),
    "doctor": ("headrace.cli.doctor", "Check this machine: runtimes, resources, ports."),
    "version": ("headrace.cli.version", "Print the version."),
}
"""Name → module (and name of the application in it) and the line of help that ``headrace --help`` shows."""


def application(name: str) -> typer.Typer:
    """The application of a command; its module is imported."""
    module, _, attribute = COMMANDS[name][0].partition(":")
    found: typer.Typer = getattr(importlib.import_module(module), attribute or "app")
    return found


class LazyGroup(typer.core.TyperGroup):
    """Lists commands from ``COMMANDS`` and imports the one that is run."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.commands = {name: typer.core.TyperCommand(name=name, help=text) for name, (_, text) in COMMANDS.items()}

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, command, rest = super().resolve_command(ctx, args)
        if name in COMMANDS:
            command = typer.main.get_command(application(name))
            command.name = name
        return name, command, rest


app = typer.Typer(
    cls=LazyGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Begin with:  headrace serve model.onnx\n\nEach command explains itself:  headrace serve --help",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from headrace import __version__

        typer.echo(f"headrace {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    """Headrace serves machine-learning models over REST and gRPC."""


def main() -> None:
    """Entry point of the ``headrace`` script."""
    app(prog_name="headrace")


if __name__ == "__main__":
    main()
