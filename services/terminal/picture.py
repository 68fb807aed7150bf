"""What a run looks like in a terminal of any size, from the state that `/status` tells (`services.server.view`).

Names, reasons and details come from elsewhere: they are plain text here, without markup, and hold no character that a
terminal obeys.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from services.wording import NONE, OVER, WORDS, ago, clock, number, printable, span

State = Mapping[str, Any]

PHASE_STYLES = {"completed": "bold green", "failed": "bold red", "stopped": "bold yellow", "waiting": "bold yellow"}
STATE_STYLES = {
    "training": "cyan",
    "evaluating": "cyan",
    "preparing": "cyan",
    "late": "yellow",
    "dropped": "yellow",
    "standby": "yellow",
    "refused": "red",
    "gone": "red",
}

TROUBLE = ("refused", "gone", "dropped", "late", "standby")
"""States that are shown first where there is no room for all clients."""

MOST_EVENTS = 5
"""Events that are shown, the latest last."""

LONGEST_NAME = 24
"""Characters of a client's name that are shown."""

NARROW, WIDE = 60, 76
"""Characters of a line from which on figures of each client are shown, and all of them."""


@dataclass(frozen=True)
class Picture:
    """A picture of a run that fits the terminal it is drawn on.

    Args:
        state: what `/status` tells.
        note: what there is to say of that state itself, as that it is not the newest.
        whole: show every client, however many lines there are.
    """

    state: State
    note: str = ""
    whole: bool = False

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        head, foot = list(self._head(options.max_width)), list(self._foot())
        clients = [*self.state["clients"].items(), *self.state["gone"].items()]
        events = list(self.state["events"])[-MOST_EVENTS:]
        if not self.whole:
            # one line is left to the cursor, so that nothing scrolls
            lines = max(1, console.size.height - 1)
            head, foot = head[:lines], foot[: max(0, lines - len(head))]
            left = lines - len(head) - len(foot)
            events = events[len(events) - min(len(events), max(left - 1 - len(clients), left // 4)) :]
            left -= len(events)
            shown = len(clients) if len(clients) < left else max(0, left - 2)
        else:
            left = shown = len(clients)
        yield from head
        if shown:
            yield _table(_chosen(clients, shown), options.max_width)
        if shown < len(clients) and left > 0:
            yield _line(_others(clients, shown), "dim")
        yield from (_event(row) for row in events)
        yield from foot

    def _head(self, width: int) -> Iterator[RenderableType]:
        """Tell how far the run is."""
        state = self.state
        phase, done, planned = state["phase"], len(state["history"]["round"]), state["rounds_planned"]
        over = phase in OVER
        title = Text(WORDS.get(phase, printable(phase)), PHASE_STYLES.get(phase, "bold cyan"))
        if not over and phase not in {"gathering", "waiting"}:
            title.append(f" · round {min(done + 1, planned)} of {planned}", "bold")
        title.append(f" · {printable(state['run_id'])}", "dim")
        yield _cut(title)
        facts = [span(state["seconds"])]
        if state["seconds_left"] is not None and not over:
            facts[0] += f", {span(state['seconds_left'])} left"
        if done:
            facts += [
                f"test accuracy {number(state['test_accuracy'])}",
                f"accuracy {number(state['accuracy'])}",
                f"loss {number(state['loss'])}",
            ]
        if not over and phase in {"gathering", "waiting"}:
            facts.append(f"{len(state['clients'])} of {state['clients_wanted']} clients are there")
        if state["privacy"]:
            spent, budget = (number(state["privacy"][key], 2) for key in ("epsilon_spent", "epsilon"))
            facts.append(f"epsilon {spent} of {budget}")
        yield from (_line(line) for line in _packed(facts, width))
        yield _bar(done, planned, "rounds")

    def _foot(self) -> Iterator[RenderableType]:
        """Tell what went wrong."""
        if self.state["refusals"]:
            told = ", ".join(f"{reason} ({count})" for reason, count in self.state["refusals"].items())
            yield _line(f"refused at the door: {told}", "yellow")
        if self.state["reason"]:
            yield _line(self.state["reason"], PHASE_STYLES.get(self.state["phase"], ""))
        if self.note:
            yield _line(self.note, "yellow")


@dataclass(frozen=True)
class ClientPicture:
    """What one client is at, on one line.

    Args:
        name: of the client.
        look: tells what it is at, in which round (0 before the first), and its steps: taken, and in all.
    """

    name: str
    look: Callable[[], tuple[str, int, tuple[int, int]]]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        doing, round_, (step, steps) = self.look()
        words = f"{printable(self.name)} · round {round_} · {doing}" if round_ else f"{printable(self.name)} · {doing}"
        yield _bar(step, steps, words) if doing == "training" and steps else _line(words, "cyan")


def _chosen(clients: Sequence[tuple[str, State]], count: int) -> list[tuple[str, State]]:
    """Choose whom to show: all, or those in trouble before others, each in the order they have."""
    if count >= len(clients):
        return list(clients)
    first = sorted(range(len(clients)), key=lambda place: (clients[place][1]["state"] not in TROUBLE, place))
    return [clients[place] for place in sorted(first[:count])]


def _others(clients: Sequence[tuple[str, State]], shown: int) -> str:
    """Tell how many are not shown, and what they are at."""
    names = {name for name, _ in _chosen(clients, shown)}
    states: dict[str, int] = {}
    for name, client in clients:
        if name not in names:
            states[client["state"]] = states.get(client["state"], 0) + 1
    head = f"… and {len(clients) - shown} more" if shown else f"{len(clients)} clients"
    return f"{head}: " + ", ".join(f"{count} {state}" for state, count in states.items())


def _table(clients: Sequence[tuple[str, State]], width: int) -> Table:
    """Show a row a client; narrow terminals show fewer figures."""
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, expand=True, header_style="dim")
    table.add_column("client", no_wrap=True, max_width=LONGEST_NAME)
    table.add_column("state", no_wrap=True)
    figures = _FIGURES if width >= WIDE else _FIGURES[1:3] if width >= NARROW else ()
    for title, _ in figures:
        table.add_column(title, no_wrap=True, justify="right")
    table.add_column("steps", no_wrap=True, ratio=1)
    for name, client in clients:
        state = client["state"]
        table.add_row(
            Text(printable(name)),
            Text(printable(state), STATE_STYLES.get(state, "")),
            *(Text(tell(client)) for _, tell in figures),
            _progress(client),
        )
    return table


_FIGURES: Sequence[tuple[str, Callable[[State], str]]] = (
    ("images", lambda client: NONE if client["train"] is None else f"{client['train']:,}"),
    ("s/round", lambda client: number(_seconds(client), 1)),
    ("accuracy", lambda client: number(client["accuracy"])),
    ("seen", lambda client: ago(client["seen_s"])),
)


def _seconds(client: State) -> float | None:
    return None if client["train_s"] is None else client["train_s"] + (client["eval_s"] or 0.0)


def _progress(client: State) -> RenderableType:
    """Show how far a client is in its round, or why it is not in it."""
    if client["steps"]:
        return _bar(client["step"], client["steps"])
    return Text(printable(client["reason"]), "dim", overflow="ellipsis")


def _bar(done: int, whole: int, words: str = "") -> RenderableType:
    """Draw a bar with the numbers it stands for after it."""
    grid = Table.grid(padding=(0, 1, 0, 0), expand=True)
    cells: list[RenderableType] = [ProgressBar(max(1, whole), done), Text(f"{done}/{whole}")]
    if words:
        grid.add_column(no_wrap=True)
        cells.insert(0, Text(words))
    grid.add_column(ratio=1)
    grid.add_column(no_wrap=True, justify="right")
    grid.add_row(*cells)
    return grid


def _event(row: Sequence[Any]) -> Text:
    """Word an event: when, what, who and why."""
    return _line(f"{clock(row[0])} {happened(row)}", "dim")


def happened(row: Sequence[Any]) -> str:
    """Word an event without its time: what, who and why."""
    _, _, event, client, detail = row
    return f"{event}{' ' if client else ''}{client}{': ' if detail else ''}{detail}"


def _packed(facts: Sequence[str], width: int) -> Iterator[str]:
    """Put facts side by side as far as lines are wide."""
    line = ""
    for fact in facts:
        joined = f"{line} · {fact}" if line else fact
        if line and len(joined) > width:
            yield line
            line = fact
        else:
            line = joined
    yield line


def _line(text: str, style: str = "") -> Text:
    return _cut(Text(printable(text), style))


def _cut(text: Text) -> Text:
    """Let a text have one line, whatever its length."""
    text.no_wrap, text.overflow = True, "ellipsis"
    return text
