"""The command line of `fed kit`: its subcommands, and what each calls."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from services import settings

FOLDER = Path("federation")

DAYS = 365
"""Lifetime of a site's certificate, unless said otherwise: each renewal is a kit that has to be carried there."""

Command = Callable[[argparse.Namespace, settings.Settings], list[str]]


def declare(parser: argparse.ArgumentParser, whole: Callable[[int, int], Callable[[str], int]]) -> None:
    """Add the subcommands to the parser of `fed kit`.

    Args:
        parser: that parser; its class and formatter are theirs too.
        whole: makes a type of argument, a whole number from one to another.
    """
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True, parser_class=type(parser))

    def add(name: str, call: Command, text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(
            name, help=text, description=text, allow_abbrev=False, formatter_class=parser.formatter_class
        )
        sub.set_defaults(call=call)
        return sub

    init = add("init", _init, "Operator: make a federation's folder, with a CA and the server's kit.")
    init.add_argument("--server", required=True, metavar="HOST[:PORT]", help="address under which sites dial it")
    init.add_argument("--host", action="append", default=[], help="further name or address in its certificate; repeat")
    init.add_argument("--server-name", help="name in its certificate, where sites dial another's address (SNI)")
    init.add_argument(
        "--header", action="append", default=[], help="of the websocket's handshake, 'Name: value'; repeat"
    )
    init.add_argument("--experiment", type=Path, help="experiment file (default: EXPERIMENT, or experiment.yml)")
    init.add_argument("--shape", type=_shape, help="of an example, as 28,28 (default: of the experiment's data set)")
    init.add_argument(
        "--classes", type=_names, metavar="NAME,NAME…", help="in the order of the labels (default: likewise)"
    )
    init.add_argument("--days", type=whole(1, 3650), default=DAYS, help="lifetime of certificates")

    site = add("site", _site, "Operator: add a site: its kit, a folder and a .tar.gz.")
    site.add_argument("name", metavar="NAME", help="name of the site")

    renew = add("renew", _renew, "Operator: issue new certificates, in new kits; old ones count until they expire.")
    renew.add_argument("names", nargs="+", metavar="NAME", help="site, or `server`")
    renew.add_argument("--revoke", action="store_true", help="the old ones count no more, as after a leak")

    revoke = add("revoke", _revoke, "Operator: let the certificates of sites count no more.")
    revoke.add_argument("names", nargs="+", metavar="NAME", help="site")

    lister = add("list", _list, "Operator: tell who has which certificate, and until when.")

    for sub in (init, site, renew, revoke, lister):
        sub.add_argument("--folder", type=Path, default=FOLDER, help="the federation's")
    for sub in (init, site, renew):
        sub.add_argument("--passphrase-file", type=Path, help="holds the passphrase of the CA's key (default: ask)")

    verify = add("verify", _verify, "Site: check that a kit is as it was issued.")
    verify.add_argument("--fingerprint", help="of the federation's CA, as the operator has told it")
    check = add("check", _check, "Site: look at its own data as its client will before it joins.")
    secagg = add("secagg", _secagg, "Site: make its keys for secure aggregation, and tell whose public keys are there.")
    verify.add_argument("kit", type=Path, metavar="KIT", help="folder of a kit, or its .tar.gz")
    for sub in (check, secagg):
        sub.add_argument("kit", type=Path, metavar="KIT", help="folder of a kit")


def run(options: argparse.Namespace, env: settings.Settings) -> None:
    """Do what the subcommand is for, and print what it has to tell."""
    call: Command = options.call
    for line in call(options, env):
        print(line)  # noqa: T201 - a command prints


def _shape(text: str) -> tuple[int, ...]:
    try:
        shape = tuple(int(axis) for axis in text.split(","))
    except ValueError:
        shape = ()
    if not shape or min(shape) < 1 or len(shape) > 3:  # noqa: PLR2004 - height, width, channels
        raise argparse.ArgumentTypeError(f"{text!r} is no shape of an example, as 28,28 or 32,32,3 or 13")
    return shape


def _names(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(","))
    if len(names) < 2 or "" in names or len(set(names)) < len(names):  # noqa: PLR2004 - one class is nothing to tell apart
        raise argparse.ArgumentTypeError(f"{text!r} is no list of classes, as cat,dog")
    return names


def _init(options: argparse.Namespace, env: settings.Settings) -> list[str]:
    from services.kit import main  # noqa: PLC0415 - the command line alone imports next to nothing

    headers = settings.read_headers(";".join(options.header), "--header")
    asked = main.Asked(
        options.server, options.host, options.server_name, headers, options.shape, options.classes, options.days
    )
    return main.init(options.folder, asked, options.experiment or env.experiment, options.passphrase_file)


def _site(options: argparse.Namespace, env: settings.Settings) -> list[str]:
    from services.kit import main  # noqa: PLC0415

    del env
    return main.site(options.folder, options.name, options.passphrase_file)


def _renew(options: argparse.Namespace, env: settings.Settings) -> list[str]:
    from services.kit import main  # noqa: PLC0415

    del env
    return main.renew(options.folder, options.names, options.passphrase_file, revoking=options.revoke)


def _revoke(options: argparse.Namespace, env: settings.Settings) -> list[str]:
    from services.kit import main  # noqa: PLC0415

    del env
    return main.revoke(options.folder, options.names)


def _list(options: argparse.Namespace, env: settings.Settings) -> list[str]:
    from services.kit import main  # noqa: PLC0415

    del env
    return main.listed(options.folder)


def _verify(options: argparse.Namespace, env: settings.Settings) -> list[str]:
    from services.kit import main  # noqa: PLC0415

    del env
    return main.verified(options.kit, options.fingerprint)


def _check(options: argparse.Namespace, env: settings.Settings) -> list[str]:
    from services.kit import main  # noqa: PLC0415

    return main.checked(options.kit, env.data)


def _secagg(options: argparse.Namespace, env: settings.Settings) -> list[str]:
    from services.kit import main  # noqa: PLC0415

    del env
    return main.secagg(options.kit)
