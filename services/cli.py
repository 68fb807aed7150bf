"""The command `fed`: one subcommand a role; parse, check, load, one call."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from services import __version__, experiment, logs, settings, source
from services.errors import FedError, StoppedError, UsageError
from services.experiment import overrides
from services.kit import arguments as kit_arguments
from services.paths import CA_CERTIFICATE, SECAGG, SERVER_CERTIFICATE, SERVER_KEY, Paths
from services.runs import LATEST

if TYPE_CHECKING:
    from services.client.main import ClientOptions

DEFAULTS = settings.Settings()


class _Formatter(argparse.ArgumentDefaultsHelpFormatter):
    """`ArgumentDefaultsHelpFormatter` that is silent where the default is none, false, empty or in the text already."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        told = "(default: " in (action.help or "")
        return action.help if told or not action.default or action.const is False else super()._get_help_string(action)


class _Parser(argparse.ArgumentParser):
    """`ArgumentParser` whose mistakes are errors of ours: one line, exit code 2, no usage text over it."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(message, "", f"see `{self.prog} --help`")


def _whole(low: int, high: int) -> Callable[[str], int]:
    """Make a type of argument: a whole number from `low` to `high`."""

    def parse(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = low - 1
        if not low <= number <= high:
            raise argparse.ArgumentTypeError(f"{text!r} is no whole number from {low} to {high}")
        return number

    return parse


_count = _whole(1, settings.MAX_PREPARED)
_port = _whole(0, 65535)
_seed = _whole(0, 2**32 - 1)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand.

    Args:
        argv: words of the command line after `fed`; None takes the process's own.

    Returns:
        The exit code; see `services.errors`.
    """
    command = "fed"
    try:
        form = settings.log_format()
        logs.configure(command, form=form)
        options = _parser().parse_args(argv)
        command = f"fed {options.role}"
        logs.configure(options.role, verbose=getattr(options, "verbose", True), form=form)
        call: Callable[[argparse.Namespace, settings.Settings], None] = options.command
        call(options, settings.load())
        sys.stdout.flush()  # here, where a reader that is gone is known for what it is
    except StoppedError as exc:
        # a client that is told to stop has done its part; a run that is told to stop is not complete
        logs.last_words(command, "warning", str(exc))
        return 0 if options.role == "client" else exc.exit_code
    except FedError as exc:
        logs.last_words(command, "error", str(exc))
        return exc.exit_code
    except KeyboardInterrupt:
        return StoppedError.exit_code
    except BrokenPipeError:
        # whoever read our output has seen enough; nothing is left to tell, nor to flush
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as exc:  # noqa: BLE001 - the last net: a bug is one line too, its traceback is in the log file
        logs.last_words(command, "critical", f"{logs.unforeseen(exc)}; this is a bug, please report it")
        return FedError.exit_code
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="fed", description="Federated learning that starts with one command.", allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"fed {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True, parser_class=_Parser)

    def add(name: str, command: Callable[[argparse.Namespace, settings.Settings], None], text: str) -> _Parser:
        sub: _Parser = commands.add_parser(
            name,
            help=text,
            description=text,
            allow_abbrev=False,
            formatter_class=_Formatter,
        )
        sub.set_defaults(command=command, role=name)
        return sub

    init = add("init", _init, "Prepare data, shards for every federation size, and identities; then exit. Idempotent.")
    init.add_argument("--drop-to", type=int, metavar="UID", help="as root: open the results folder, then become UID")
    init.add_argument("--data-only", action="store_true", help="issue no identities: they come from elsewhere")

    data = add("data", _data, "Cut MNIST into one folder of arrays a client.")
    data.add_argument("nb_clients", type=_count, metavar="N", help="number of clients")
    _split_flags(data, scheme="iid")
    data.add_argument("--folder", type=Path, default=Path("data"), help="folder with mnist_raw/ that receives the cut")

    certs = add("certs", _certs, "Issue a CA, a server certificate and client identities. Its key is never written.")
    certs.add_argument("--folder", type=Path, default=Path("certs"), help="folder that receives them")
    certs.add_argument("--host", action="append", help="name or address that clients dial; repeatable")
    certs.add_argument("--clients", type=_count, default=DEFAULTS.max_clients, help="number of client identities")
    certs.add_argument("--name", action="append", default=[], help="identity beside client_<i>; repeat for more")

    server = add("server", _server, "Serve one run: wait for N clients, train, write results.")
    server.add_argument("nb_clients", type=_count, nargs="?", metavar="N", help="number of clients (default: CLIENTS)")
    server.add_argument("--kit", type=Path, help="folder of the server's kit, in place of the next four")
    server.add_argument("--certificate", type=Path, default=Path("certs") / SERVER_CERTIFICATE, help="PEM certificate")
    server.add_argument("--private-key", type=Path, default=Path("certs") / SERVER_KEY, help="PEM private key")
    server.add_argument("--ca-cert", type=Path, help="PEM CA of the clients (default: beside the certificate)")
    server.add_argument("--no-client-auth", action="store_true", help="let clients without a certificate join")
    server.add_argument("--host", help=f"address to listen on (default: {DEFAULTS.host})")
    server.add_argument("--port", type=_port, help=f"port to listen on (default: {DEFAULTS.port})")
    server.add_argument("--status-port", type=_port, help=f"status page, 0: none (default: {DEFAULTS.status_port})")
    server.add_argument("--experiment", type=Path, help=f"experiment file (default: {DEFAULTS.experiment})")
    server.add_argument("--rounds", type=int, help="rounds in place of the experiment's")
    server.add_argument("--fresh", action="store_true", help="begin a new run although an unfinished one is there")

    client = add(
        "client", _client, "Take part with own data as NAME; or, with no arguments, as the next free identity."
    )
    client.add_argument("client_name", nargs="?", metavar="NAME", help="identity to claim (default: lowest free)")
    client.add_argument("data_folder", nargs="?", type=Path, metavar="FOLDER", help="folder with NAME/train_data.npy …")
    client.add_argument("--kit", type=Path, help="folder of a site's kit, in place of all about who and where")
    client.add_argument("--serv-uri", help=f"address of the server (default: wss://localhost:{DEFAULTS.port})")
    client.add_argument("--ca-cert", type=Path, default=Path("certs") / CA_CERTIFICATE, help="PEM CA of the server")
    client.add_argument("--identities", type=Path, help="folder of client identities (default: clients/ beside the CA)")
    client.add_argument("--no-client-auth", action="store_true", help="show no certificate")
    client.add_argument(
        "--max-parameters",
        type=_whole(1, 10**12),
        metavar="N",
        help=f"numbers that a model may have in its weights (default: {DEFAULTS.max_parameters:,})",
    )
    client.add_argument("--no-share-metrics", action="store_true", help="tell the server the loss alone, no metrics")
    client.add_argument("--quiet", dest="verbose", action="store_false", help="show warnings only")

    _add_experiments(add, [init, server])
    kit = add("kit", _kit, "Sites that share nothing but a server's address: make, check and renew what each is given.")
    kit_arguments.declare(kit, _whole)
    return parser


def _add_experiments(add: Callable[..., _Parser], takers: list[_Parser]) -> None:
    """Add the commands that are about experiments, and to these and `takers` the flag that changes one."""
    demo = add("demo", _demo, "Run everything on this machine as processes: data, certificates, server, clients.")
    demo.add_argument("--clients", "--nb-clients", type=_count, help=f"number of clients (default: {DEFAULTS.clients})")
    _split_flags(demo, scheme=None)
    demo.add_argument("--experiment", type=Path, help=f"experiment file (default: {DEFAULTS.experiment})")
    demo.add_argument("--rounds", type=int, help="rounds in place of the experiment's")

    check = add("check", _check, "Check an experiment file and print the resolved plan.")
    check.add_argument("--schema", action="store_true", help="print the JSON Schema of experiment files, for editors")
    check.add_argument(
        "experiment", type=Path, nargs="?", metavar="FILE", help=f"experiment file (default: {DEFAULTS.experiment})"
    )
    sweep = add("sweep", _sweep, "Run each combination of some values, one after another, as `fed demo`; then compare.")
    sweep.add_argument(
        "experiment", type=Path, nargs="?", metavar="FILE", help=f"as above (default: {DEFAULTS.experiment})"
    )
    sweep.add_argument(
        "--set",
        action="append",
        default=[],
        dest="grid",
        metavar="KEY=VALUE,VALUE…",
        help="values to try in place of the experiment's, as optimizer.client.lrate=0.01,0.05; repeatable",
    )
    sweep.add_argument("--clients", type=_count, help=f"number of clients (default: {DEFAULTS.clients})")
    sweep.add_argument("--fresh", action="store_true", help="run those that are complete again")
    sweep.set_defaults(set=[])

    status = add("status", _status, "Show the run that a server is at work on, live; end with it, and as it did.")
    status.add_argument("--url", help=f"status page (default: http://127.0.0.1:{DEFAULTS.status_port}, by STATUS_PORT)")
    once = status.add_mutually_exclusive_group()
    once.add_argument("--once", action="store_true", help="show the state of the moment, and end")
    once.add_argument("--json", action="store_true", help="print the state of the moment as JSON, and end")

    compare = add("compare", _compare, "Compare runs: print what differs and how they ended, and draw their curves.")
    compare.add_argument("runs", nargs="+", metavar="RUN", help="id or folder of a run, `latest`, or a sweep")
    compare.add_argument("--output", type=Path, metavar="PNG", help="picture to write (default: results/compare.png)")

    report = add("report", _report, "Make the report of a run again, page and pictures, from the run's files.")
    report.add_argument("run", nargs="?", default=LATEST, metavar="RUN", help="id or folder of a run, or `latest`")
    report.add_argument("--output", type=Path, metavar="FOLDER", help="folder that receives it (default: the run's)")

    predict = add(
        "predict",
        _predict,
        "Tell what a model takes images for: file, class and probability, a line an image. Images are resized, and"
        " made gray where the model's are. Where it was trained on MNIST or Fashion-MNIST, which are white on black, an"
        " image with a light border is inverted; a digit of another size than MNIST's is also cut out and centred.",
    )
    predict.add_argument("model", metavar="MODEL", help="model.keras or model.npz of a run; or that run")
    predict.add_argument("images", type=Path, nargs="+", metavar="IMAGE", help="PNG, JPEG, BMP or WebP, opaque")

    for changeable in (*takers, demo, check):
        changeable.add_argument(
            "--set",
            action="append",
            default=[],
            metavar="KEY=VALUE",
            help="value in place of the experiment's, in YAML, as optimizer.client.lrate=0.01; repeatable",
        )


def _split_flags(parser: argparse.ArgumentParser, scheme: str | None) -> None:
    parser.add_argument("--scheme", default=scheme, choices=experiment.SCHEMES, help="how images are split")
    parser.add_argument("--seed", type=_seed, help="seed of the split")


def _plan(options: argparse.Namespace, env: settings.Settings) -> experiment.Plan:
    """Read the experiment file and what stands in place of its values: the environment's, then the command line's."""
    path = next(p for p in (getattr(options, "experiment", None), env.experiment) if p is not None)
    return experiment.load(path, _overrides(options, env))


_KEYS = {"scheme": "data.scheme", "seed": "seed", "rounds": "rounds"}
"""Keys of the file that have a flag and a variable of their own."""


def _overrides(options: argparse.Namespace, env: settings.Settings) -> list[experiment.Override]:
    """List what stands in place of the file's values, the weakest first."""
    variables = [(key, getattr(env, name), name.upper()) for name, key in _KEYS.items()]
    flags = [(key, getattr(options, name, None), f"--{name}") for name, key in _KEYS.items()]
    return [
        *(overrides.Override.of(key, value, f"{name}={value}") for key, value, name in variables if value is not None),
        *(overrides.read(text, "SET") for text in overrides.split(env.set or "", " \t\r\n")),
        *(overrides.Override.of(key, value, f"{name} {value}") for key, value, name in flags if value is not None),
        *(overrides.read(text, "--set") for text in options.set),
    ]


def _init(options: argparse.Namespace, env: settings.Settings) -> None:
    from services.init import main as init

    init.run(env, _plan(options, env), Paths(env.root, env.data), drop_to=options.drop_to, data_only=options.data_only)


def _data(options: argparse.Namespace, env: settings.Settings) -> None:
    from services.init import folders, shards
    from services.init import main as init

    del env  # declearn's script takes all it needs from its arguments, and so do we
    raw = options.folder / "mnist_raw"
    seed = folders.write_folders(raw, options.folder, options.nb_clients, options.scheme, options.seed)
    init.hold_out(raw, shards.Recipe(options.scheme, seed), options.folder / "test")
    print(f"{options.folder}/mnist_{options.scheme}: {options.nb_clients} clients, seed {seed}")


def _certs(options: argparse.Namespace, env: settings.Settings) -> None:
    from services.init import identities, secagg_keys

    del env
    names = [f"client_{number}" for number in range(options.clients)] + options.name
    report = identities.ensure(options.folder, options.folder / "clients", names, options.host or identities.HOSTS)
    secagg_keys.ensure(options.folder / "clients", names)
    held = f", {len(report.held)} in use and left as they are" if report.held else ""
    print(
        f"{options.folder}: {len(report.made)} identities issued, {len(report.kept)} kept{held};"
        f" the first expires on {report.expires:%Y-%m-%d %H:%M} UTC"
    )


def _kit(options: argparse.Namespace, env: settings.Settings) -> None:
    kit_arguments.run(options, env)


def _server(options: argparse.Namespace, env: settings.Settings) -> None:
    from services.server import main as server

    denylist = env.root / env.denylist
    if options.kit is not None:
        denylist = _take_up_server(options)
    paths = Paths(env.root, env.data)
    clients = env.clients if options.nb_clients is None else options.nb_clients
    ca = None if options.no_client_auth else options.ca_cert or options.certificate.parent / CA_CERTIFICATE
    server.run(
        _plan(options, env),
        server.ServerOptions(
            clients=clients,
            host=options.host or env.host,
            port=env.port if options.port is None else options.port,
            status_port=env.status_port if options.status_port is None else options.status_port,
            certificate=options.certificate,
            key=options.private_key,
            ca=ca,
            test=paths.test,
            denylist=denylist,
            results=paths.results,
            models=env.models,
            liveness_timeout=env.liveness_timeout,
            fresh=options.fresh or env.fresh,
            linger=env.linger,
        ),
    )


def _take_up_server(options: argparse.Namespace) -> Path:
    """Take identity and experiment from the server's kit; gives the folder of its denylist."""
    from services.kit import contents
    from services.kit.main import read_for

    kit: Path = options.kit
    facts = read_for(kit, "server")
    options.certificate, options.private_key = kit / facts.certificate, kit / facts.key
    options.experiment = options.experiment or kit / contents.EXPERIMENT
    return (kit / contents.DENYLIST).parent


def _client(options: argparse.Namespace, env: settings.Settings) -> None:
    from services.client import main as client
    from services.transport.client import Route
    from services.transport.tunnel import read_proxy

    if options.client_name is not None and options.data_folder is None:
        raise UsageError(f"NAME is {options.client_name!r} without FOLDER", "NAME and FOLDER, or neither", "add FOLDER")
    name = options.client_name or env.client_name
    proxy = None if env.server_proxy is None else read_proxy(env.server_proxy)
    what = client.ClientOptions(
        server_uri=options.serv_uri or env.server_uri or f"wss://localhost:{env.port}",
        identities=options.identities or options.ca_cert.parent / "clients",
        shards=Paths(env.root, env.data).shards,
        ca=options.ca_cert if options.ca_cert.exists() else None,
        name=name,
        own_data=None if options.data_folder is None else options.data_folder / name,
        timeout=env.connect_timeout,
        server_grace=env.server_grace,
        liveness_timeout=env.liveness_timeout,
        anonymous=options.no_client_auth,
        max_parameters=env.max_parameters if options.max_parameters is None else options.max_parameters,
        share_metrics=env.share_metrics and not options.no_share_metrics,
        route=Route(env.server_name, env.server_headers, proxy),
    )
    client.run(what if options.kit is None else _with_kit(what, options, env))


def _with_kit(what: ClientOptions, options: argparse.Namespace, env: settings.Settings) -> ClientOptions:
    """Take identity, address and terms from a site's kit; what is set in the environment comes first."""
    from services.kit import contents
    from services.kit.main import read_for
    from services.transport.client import Route

    if options.client_name is not None:
        raise UsageError(
            f"NAME is {options.client_name!r} beside --kit", "one of them", "drop NAME and FOLDER: set DATA to the data"
        )
    kit: Path = options.kit
    facts = read_for(kit, "client")
    certs = (kit / facts.certificate).parent
    return dataclasses.replace(
        what,
        server_uri=options.serv_uri or env.server_uri or facts.server_uri,
        identities=certs,
        ca=certs / CA_CERTIFICATE,
        name=facts.name,
        own_data=env.data or kit / contents.SITE_OWN[0],
        route=Route(env.server_name or facts.server_name, env.server_headers or facts.server_headers, what.route.proxy),
        secagg_keys=kit / SECAGG,
        terms=facts.terms,
    )


def _demo(options: argparse.Namespace, env: settings.Settings) -> None:
    from services import demo

    clients = env.clients if options.clients is None else options.clients
    settings.check_clients(clients, env.max_clients)
    paths = Paths(env.root, env.data)
    demo.run(_plan(options, env), clients, paths, env.models, status_port=env.status_port)


def _check(options: argparse.Namespace, env: settings.Settings) -> None:
    if options.schema:
        from services.experiment.schema import json_schema

        print(json.dumps(json_schema(), indent=2, ensure_ascii=False))
        return
    plan = _plan(options, env)
    if plan.model.module is not None:
        if env.models.is_dir():
            source.read(plan.model.module, env.models)
        else:
            note = f"model.module {plan.model.module} is not looked at: there is no folder {env.models} (MODELS)"
            logs.last_words("fed check", "info", f"note: {note}")
    sys.stdout.write(experiment.dump(plan))


def _sweep(options: argparse.Namespace, env: settings.Settings) -> None:
    from services import sweep

    clients = env.clients if options.clients is None else options.clients
    settings.check_clients(clients, env.max_clients)
    path = options.experiment or env.experiment
    combinations = sweep.grid(path, _overrides(options, env), options.grid)
    try:
        table = sweep.run(
            combinations, clients, Paths(env.root, env.data), env.models, label=path.stem, fresh=options.fresh
        )
    except sweep.SweepError as exc:
        sys.stdout.write(exc.table)
        raise
    sys.stdout.write(table)


def _status(options: argparse.Namespace, env: settings.Settings) -> None:
    from services.terminal import status

    url = options.url or f"http://127.0.0.1:{env.status_port}"
    status.run(url, once=options.once, as_json=options.json, form=env.log_format)


def _compare(options: argparse.Namespace, env: settings.Settings) -> None:
    from services import compare

    results = Paths(env.root).results
    sys.stdout.write(compare.run(options.runs, results, options.output or results / compare.PICTURE))


def _report(options: argparse.Namespace, env: settings.Settings) -> None:
    from services.report import main as report

    print(report.run(options.run, Paths(env.root).results, options.output))


def _predict(options: argparse.Namespace, env: settings.Settings) -> None:
    from services import predict

    for line in predict.run(options.model, options.images, Paths(env.root).results):
        print(line)
