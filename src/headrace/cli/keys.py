"""``headrace keys``: API keys from the shell. A key is printed when it is made, and never again.

What a command needs is imported when it runs, so that its help is quick.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from headrace.cli.models import AsJson, Database, Reason, State
from headrace.cli.outcome import epilog, reported
from headrace.core import errors

if TYPE_CHECKING:
    from headrace.app.keys.keys_service import KeysService
    from headrace.core.keys import Scope

GROUP_EXAMPLES = """\
Examples:

  headrace keys bootstrap

  headrace keys create checkout --scope predict --endpoint fraud --expires 90d

  headrace keys rotate checkout --grace 7d

  headrace keys revoke checkout --why "laptop lost"

They work through the server that owns the state when $HEADRACE_API_KEY is set, to an admin key, else on the state
itself. Servers that use the same --state or --database follow within a second or two.
"""

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    epilog=GROUP_EXAMPLES,
    help="Make, rotate and revoke API keys.",
)

Expires = Annotated[
    str | None, typer.Option("--expires", metavar="TIME", help="From now: 12h, 90d. Default: it does not expire.")
]
Server = Annotated[
    str | None,
    typer.Option(
        "--server",
        metavar="URL",
        help="Management port to ask, with the admin key of $HEADRACE_API_KEY; default: $HEADRACE_SERVER, else with"
        " such a key whoever owns the state, else the state itself.",
    ),
]
NameOrId = Annotated[str, typer.Argument(metavar="NAME|ID", help="A key's name, or its id as list shows it.")]


@contextmanager
def _opened(state: str | None, database: str | None, server: str | None, as_json: bool) -> Iterator[KeysService]:
    with reported(as_json):
        from headrace.app.keys.keys_place import open_keys
        from headrace.app.state.location import locate

        with open_keys(locate(state, database, None, os.environ), server, os.environ) as keys:
            yield keys


def _epilog(*examples: str) -> str:
    return epilog(*examples, under="keys")


@app.command(epilog=_epilog("bootstrap", "bootstrap --state /srv/headrace --expires 365d"))
def bootstrap(
    name: Annotated[str, typer.Option("--name", metavar="NAME", help="Whose key it is.")] = "admin",
    expires: Expires = None,
    state: State = None,
    database: Database = None,
    as_json: AsJson = False,
) -> None:
    """Make the first key, which may do everything, and print it: once.

    From then on servers of this state ask for keys. Works on the state itself, never through a server.
    """
    with reported(as_json):
        from headrace.app.keys.direct_keys import moment
        from headrace.app.keys.key_state import open_issuer
        from headrace.app.state.location import locate
        from headrace.cli.key_views import print_issued

        ends = moment(_lifetime(expires))
        with open_issuer(locate(state, database, None, os.environ), os.environ) as issuer:
            print_issued(issuer.bootstrap(name, ends).view(time.time()), as_json)


@app.command(
    epilog=_epilog(
        "create checkout --scope predict --endpoint fraud --endpoint 'team-a/*' --expires 90d",
        "create prometheus --scope metrics",
        "create ci --scope manage --scope predict --endpoint '*' --json",
    )
)
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Whose key it is.")],
    scopes: Annotated[
        list[str], typer.Option("--scope", "-s", metavar="SCOPE", help="predict, metrics, manage or admin; repeatable.")
    ],
    endpoints: Annotated[
        list[str] | None,
        typer.Option("--endpoint", "-e", metavar="PATTERN", help="What predict is for: fraud, fraud*, *; repeatable."),
    ] = None,
    expires: Expires = None,
    state: State = None,
    database: Database = None,
    server: Server = None,
    as_json: AsJson = False,
) -> None:
    """Make a key and print it: once."""
    with _opened(state, database, server, as_json) as keys:
        from headrace.cli.key_views import print_issued

        wanted = [_scope(text) for text in scopes]
        print_issued(keys.create(name, wanted, endpoints or (), expires_in_s=_lifetime(expires)), as_json)


@app.command("list", epilog=_epilog("list", "list --all --json"))
def list_keys(
    every: Annotated[bool, typer.Option("--all", help="Expired and revoked ones too.")] = False,
    state: State = None,
    database: Database = None,
    server: Server = None,
    as_json: AsJson = False,
) -> None:
    """List the keys: names, ids and what they may do; never the keys themselves."""
    with _opened(state, database, server, as_json) as keys:
        from headrace.cli.key_views import print_keys

        print_keys(keys.list(), every=every, as_json=as_json)


@app.command(epilog=_epilog("show checkout", "show k7q2mzt4x3ab --json"))
def show(
    key: NameOrId, state: State = None, database: Database = None, server: Server = None, as_json: AsJson = False
) -> None:
    """Show the keys of a name, or one by its id, with what happened to them."""
    with _opened(state, database, server, as_json) as keys:
        from headrace.cli.key_views import print_story

        print_story(keys.show(key), as_json)


@app.command(epilog=_epilog("rotate checkout", "rotate checkout --grace 7d --expires 90d", "rotate checkout --grace 0"))
def rotate(
    name: Annotated[str, typer.Argument(metavar="NAME")],
    grace: Annotated[
        str, typer.Option("--grace", metavar="TIME", help="How long the key before it stays live; 0 ends it at once.")
    ] = "24h",
    expires: Annotated[
        str | None,
        typer.Option("--expires", metavar="TIME", help="From now. Default: as long as the key before it was made for."),
    ] = None,
    why: Reason = "",
    state: State = None,
    database: Database = None,
    server: Server = None,
    as_json: AsJson = False,
) -> None:
    """Make a second key of the same name and rights, and print it: once. Both are live until the grace is over."""
    with _opened(state, database, server, as_json) as keys:
        from headrace.cli.key_views import print_issued

        grace_s = _seconds("--grace", grace)
        print_issued(keys.rotate(name, grace_s=grace_s, expires_in_s=_lifetime(expires), why=why), as_json)


@app.command(epilog=_epilog("revoke checkout --why 'laptop lost'", "revoke k7q2mzt4x3ab"))
def revoke(
    key: NameOrId,
    why: Reason = "",
    state: State = None,
    database: Database = None,
    server: Server = None,
    as_json: AsJson = False,
) -> None:
    """End a key, or every live key of a name. It cannot be undone."""
    with _opened(state, database, server, as_json) as keys:
        from headrace.cli.key_views import print_revoked

        print_revoked(keys.revoke(key, why=why), as_json)


def _scope(text: str) -> Scope:
    from headrace.core.keys import Scope

    try:
        return Scope(text)
    except ValueError:
        raise errors.BadSettings(f"--scope {text!r}: there is no such scope; there are {', '.join(Scope)}") from None


def _lifetime(text: str | None) -> float | None:
    return None if text is None else _seconds("--expires", text)


def _seconds(option: str, text: str) -> float:
    from headrace.app.settings.quantities import parse_duration

    try:
        return parse_duration(text)
    except ValueError:
        raise errors.BadSettings(f"{option} {text!r} is no time: write 90s, 30m, 24h, 7d") from None
