"""Start mitmweb or mitmdump with the addon, and say where everything is.

What we set beforehand ranks like mitmproxy's own defaults: the confdir's config.yaml and the
command line win. Everything that is printed is read back from the running proxy. The token for
mitmweb is its own, made anew at each start; it never stands on a command line.
"""

# ruff: noqa: E402  (the first statement must come before the slow imports)
import signal

# Ctrl-C while mitmproxy's many modules load ends quietly; later mitmproxy sees to it itself.
signal.signal(signal.SIGINT, signal.SIG_DFL)

# Looking for garbage while they load, and once all is over, finds none and takes a fifth of what a
# start and an end compute.
import atexit
import gc

gc.disable()
atexit.register(gc.freeze)

import argparse
import errno
import os
import select
import shlex
import socket
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from mitmproxy import ctx, options
from mitmproxy.exceptions import OptionsError
from mitmproxy.proxy.mode_servers import ServerInstance
from mitmproxy.proxy.mode_specs import ProxyMode
from mitmproxy.tools import cmdline
from mitmproxy.tools import main as mitmproxy_main
from mitmproxy.tools.dump import DumpMaster
from mitmproxy.tools.web.master import WebMaster

# Started as a script; the packages are one folder above it.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lib import environment as env
from lib.drain import Draining, UnderWay

gc.enable()

ADDON = env.ROOT / "addon" / "context.py"
CACHE_DIR = env.CACHE / "context"

# Tools behind these modes are sent here by HTTPS_PROXY; those behind others have ways of their own.
PROXY_MODES = ("regular", "upstream")


class Web(Draining, WebMaster):
    """mitmweb with our defaults."""

    def __init__(self, opts: options.Options) -> None:
        super().__init__(opts)
        set_defaults(opts)
        opts.update(web_open_browser=False, web_columns=[*opts.web_columns, "comment"])
        self.under_way = UnderWay()
        self.addons.add(Announcement(), self.under_way)


class Dump(Draining, DumpMaster):
    """mitmdump with our defaults."""

    def __init__(self, opts: options.Options) -> None:
        super().__init__(opts)
        set_defaults(opts)
        self.under_way = UnderWay()
        self.addons.add(Announcement(), self.under_way)


class Team(Draining, DumpMaster):
    """mitmdump for many people: on every address, and with nothing of any request in its output."""

    def __init__(self, opts: options.Options) -> None:
        super().__init__(opts)
        set_defaults(opts)
        opts.update(listen_host="", flow_detail=0)
        self.under_way = UnderWay()
        self.addons.add(TeamAnnouncement(), self.under_way)


def set_defaults(opts: options.Options) -> None:
    """Stay inside the checkout and on this machine. Makes the proxy's CA if there is none yet."""
    opts.update(confdir=str(env.CONFDIR), listen_host=env.HOST)


class Announcement:
    """Says where everything is, once everything is there."""

    def running(self) -> None:
        """Print to standard output, where a person or a script waits for it."""
        print("\n".join(announcement(os.environ)), flush=True)


class TeamAnnouncement:
    """Says what the people of a team need."""

    def running(self) -> None:
        """Print to standard output."""
        print("\n".join(team_announcement()), flush=True)


def team_announcement() -> Iterator[str]:
    """Where the proxy is, and what each person pastes."""
    yield "mitmcontext is running for a team."
    servers = list(ctx.master.addons.get("proxyserver").servers)
    places = [place for server in servers for place in server.listen_addrs]
    for server in servers:
        yield f"  {server.mode.description}: {' '.join(addresses(server)) or 'started'}"
    everywhere = ("0.0.0.0", "::")  # noqa: S104  (only compared)
    host = socket.gethostname() if places[0][0] in everywhere else bracketed(places[0][0])
    proxy = f"http://NAME:PASSWORD@{host}:{places[0][1]}"
    yield "Each person pastes this with their own name and password (README.md, For a team):"
    yield export({"HTTPS_PROXY": proxy, "HTTP_PROXY": proxy, "NO_PROXY": "localhost,127.0.0.1"})
    yield "What their tools must trust is at http://mitm.it/ through the proxy, and here:"
    yield f"  {confdir() / 'mitmproxy-ca-cert.pem'}"


def announcement(environment: Mapping[str, str]) -> Iterator[str]:
    """What to open and what to paste, as it really is now."""
    servers = list(ctx.master.addons.get("proxyserver").servers)
    yield env.RUNNING
    for server in servers:
        yield f"  {server.mode.description}: {' '.join(addresses(server)) or 'started'}"
    if isinstance(ctx.master, WebMaster):
        yield f"  mitmweb: {ctx.master.web_url}"
        yield f"  live figures: {live_page(ctx.master.web_url)}"
    proxies = [url for s in servers if s.mode.type_name in PROXY_MODES for url in addresses(s)]
    if proxies:
        yield "Paste this where your tools run (certs/README.md says more):"
        yield from export_lines(proxies[0], confdir(), environment)


def live_page(web: str) -> str:
    """The address of our page inside mitmweb, with the token if mitmweb's address has one."""
    base, mark, token = web.partition("?")
    return f"{base.rstrip('/')}/context{mark}{token}"


def confdir() -> Path:
    """Where mitmproxy keeps its CA, in a form that can be pasted elsewhere."""
    path: str = ctx.options.confdir
    return Path(path).expanduser().absolute()


def addresses(server: ServerInstance[ProxyMode]) -> list[str]:
    """The server's addresses as this machine reaches them, without repeats."""
    hosts = {"0.0.0.0": "127.0.0.1", "::": "127.0.0.1"}  # noqa: S104  (shown, not listened on)
    found = [(hosts.get(address[0], address[0]), address[1]) for address in server.listen_addrs]
    return list(dict.fromkeys(f"http://{bracketed(host)}:{port}" for host, port in found))


def bracketed(host: str) -> str:
    """The host as it stands in a URL."""
    return f"[{host}]" if ":" in host else host


def export_lines(proxy: str, folder: Path, environment: Mapping[str, str]) -> Iterator[str]:
    """Shell lines that send a tool through the proxy and make it trust the proxy's CA.

    Lower-case names win over upper-case ones in many tools, so they are set too where they are.
    """
    trust = env.Trust.of(folder)
    ways = env.ways(proxy)
    lower = {name: value for name, value in env.in_lower_case(ways).items() if name in environment}
    yield export(ways | lower)
    yield export(env.added(trust))
    yield export(env.replaced(trust, environment))


def export(variables: Mapping[str, str]) -> str:
    """One line for a POSIX shell."""
    pairs = (f"{name}={shlex.quote(value)}" for name, value in variables.items())
    return f"  export {' '.join(pairs)}"


class Wish(NamedTuple):
    """A port we are about to listen on, and the argument that would choose another."""

    host: str
    port: int
    other: str


def wishes() -> Iterator[Wish]:
    """Every TCP port that the options ask for."""
    opts = ctx.options
    modes = [ProxyMode.parse(spec) for spec in opts.mode] if opts.server else []
    for mode in modes:
        port = mode.listen_port(opts.listen_port)
        if port and mode.transport_protocol != "udp":
            other = f"--listen-port {port + 10}"
            if mode.custom_listen_port is not None:
                other = f"--mode {mode.full_spec.removesuffix(str(port))}{port + 10}"
            yield Wish(mode.listen_host(opts.listen_host), port, other)
    if isinstance(ctx.master, WebMaster):
        yield Wish(opts.web_host, opts.web_port, f"--web-port {opts.web_port + 10}")


def refuse_taken_ports() -> None:
    """Stop here, in one sentence, rather than on a port that nobody asked for."""
    taken = [wish for wish in wishes() if is_taken(wish)]
    if taken:
        ports = " and ".join(f"{wish.host or '*'}:{wish.port}" for wish in taken)
        others = " ".join(dict.fromkeys(wish.other for wish in taken))
        raise OptionsError(
            f"{ports} {'is' if len(taken) == 1 else 'are'} in use; stop what listens there, "
            f"or choose another port: {others}"
        )


def is_taken(wish: Wish) -> bool:
    """Other obstacles to listening are left for mitmproxy to report."""
    family = socket.AF_INET6 if ":" in wish.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((wish.host, wish.port))
        except OSError as error:
            return error.errno == errno.EADDRINUSE
    return False


def before_listening(args: argparse.Namespace) -> dict[str, object]:
    """Called by mitmproxy once all options are known. Returns more of them to set."""
    refuse_taken_ports()
    ca: bytes = ctx.master.addons.get("tlsconfig").certstore.default_ca.to_pem()
    env.write_bundle(confdir(), ca, os.environ)
    # Scripts of the user's own come beside ours, whichever way they are named.
    also = [s.removeprefix("scripts=") for s in args.setoptions if s.startswith("scripts=")]
    more: dict[str, object] = {"scripts": [*ctx.options.scripts, *also]}
    if args.filter_args:
        # As mitmdump itself does.
        names = ("save_stream_filter", "readfile_filter", "dumper_filter")
        more |= dict.fromkeys(names, " ".join(args.filter_args))
    return more


def before_listening_for_a_team(args: argparse.Namespace) -> dict[str, object]:
    """The same, unless something would show some people what others send."""
    sys.path.insert(0, str(ADDON.parent))
    from mitmcontext.proxy.team import objections

    for objection in objections(ctx.options, keeps_flows=False):
        raise OptionsError(objection)
    ctx.options.set("context_team=true", defer=True)
    return before_listening(args)


def web_parser(opts: options.Options) -> argparse.ArgumentParser:
    """mitmweb's own, with what mitmproxy expects of a program that looks at its arguments."""
    parser: argparse.ArgumentParser = cmdline.mitmweb(opts)
    parser.set_defaults(filter_args=[])
    return parser


def end_with(pid: int) -> None:
    """End as if interrupted as soon as that process has ended."""
    wait_for_end(pid)
    os.kill(os.getpid(), signal.SIGTERM)


def wait_for_end(pid: int) -> None:
    """Wait for a process that is no child of ours; nobody else gets its number meanwhile."""
    try:
        if sys.platform == "linux":
            select.select([os.pidfd_open(pid)], [], [])
        else:
            end = select.kevent(pid, select.KQ_FILTER_PROC, select.KQ_EV_ADD, select.KQ_NOTE_EXIT)
            select.kqueue().control([end], 1)
    except ProcessLookupError:
        return


def dump_no_core() -> None:
    """Let a crash leave no image of this process on the disk: keys and conversations are in it."""
    if sys.platform != "win32":
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def main(arguments: Sequence[str]) -> None:
    """Run until told to stop. mitmproxy exits by itself, with 1, where it cannot start."""
    dump_no_core()
    rest = list(arguments)
    if rest[:1] == ["--until-end-of"]:
        threading.Thread(target=end_with, args=[int(rest[1])], daemon=True).start()
        del rest[:2]
    team = "--team" in rest
    dump = team or "--dump" in rest
    rest = [argument for argument in rest if argument not in ("--dump", "--team")]
    # mitmproxy names itself in its messages by this.
    sys.argv = ["mitmdump" if dump else "mitmweb", "-s", str(ADDON), *rest]
    os.environ.setdefault("CONTEXT_CACHE_DIR", str(CACHE_DIR))
    if team:
        extra = before_listening_for_a_team
        mitmproxy_main.run(Team, cmdline.mitmdump, sys.argv[1:], extra)
    elif dump:
        mitmproxy_main.run(Dump, cmdline.mitmdump, sys.argv[1:], before_listening)
    else:
        mitmproxy_main.run(Web, web_parser, sys.argv[1:], before_listening)


if __name__ == "__main__":
    main(sys.argv[1:])
