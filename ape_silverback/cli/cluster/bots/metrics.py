"""``ape silverback cluster bots metrics``: what a bot measures, as a table, a chart or a file."""

from __future__ import annotations

import csv
import io
import shutil
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ape_silverback.cli.shared.completion import complete_bots
from ape_silverback.cli.shared.options import Moment, cluster_options, connected
from ape_silverback.cli.shared.output import show_table
from ape_silverback.cli.shared.selection import choose
from ape_silverback.cli.shared.terminal import echo, echo_text, note, plain, safe_json, safe_line
from ape_silverback.timezones import local_time

if TYPE_CHECKING:
    from ape_silverback.cluster.types import BotHealth, BotTaskResult

CHART_HEIGHT = 14
"""Lines of a chart."""


@click.command()
@click.argument("bot", shell_complete=complete_bots)
@click.argument("names", metavar="[NAME]...", nargs=-1)
@click.option(
    "-s", "--since", metavar="TIME", type=Moment(), default="1h", show_default=True, help="From when on: 10m, 1d, ISO."
)
@click.option("--until", metavar="TIME", type=Moment(), help="Up to when, likewise.")
@click.option("--plot", is_flag=True, help="Draw a chart of each metric in the terminal.")
@click.option(
    "--format",
    "format_",
    type=click.Choice(["text", "csv", "json", "parquet"], case_sensitive=False),
    default="text",
    show_default=True,
    help="A summary, or each recorded task: as CSV, as a JSON line, or in a Parquet file.",
)
@click.option(
    "-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="File to write instead of stdout."
)
@cluster_options
def metrics(
    bot: str,
    names: tuple[str, ...],
    since: datetime,
    until: datetime | None,
    plot: bool,
    format_: str,
    output: Path | None,
    profile: str | None,
    cluster: str | None,
) -> None:
    """Show how the tasks of BOT did and what they recorded: each metric NAME, by default all.

    How many tasks were handled a minute, how many failed and how long they took is recorded without any code. A metric
    is a number that a task returns.

    \b
    Example:
        ape silverback cluster bots metrics blocks --since 1d
        ape silverback cluster bots metrics blocks gas_price --plot
        ape silverback cluster bots metrics blocks --format parquet -o blocks.parquet
    """
    if plot and format_ != "text":
        raise click.UsageError("--plot draws in the terminal; it can't be combined with --format.")
    if format_ == "parquet" and output is None:
        raise click.UsageError("Parquet isn't text: pass a file with --output.")
    if format_ == "text" and output is not None:
        raise click.UsageError("--output needs --format csv, json or parquet.")
    with connected(profile, cluster) as connection:
        [chosen] = choose("bot", connection.client.bots, (bot,), False).values()
        results = chosen.get_metrics(*names, since=since, until=until)
        if format_ == "json":
            _write((safe_json(result.model_dump(mode="json")) for result in results), output)
        elif format_ == "csv":
            _write(_csv_lines(list(results)), output)
        elif output is not None:
            _write_parquet(results, output)
        else:
            _show(list(results), chosen.health, plot)


def _show(results: Sequence[BotTaskResult], health: BotHealth | None, plot: bool) -> None:
    from ape_silverback.cluster.task_results import series_of, summarise

    if not results:
        note("Nothing was recorded in this time.")
        return
    show_table(
        ("TASK", "HANDLED", "PER MINUTE", "FAILED", "ERROR RATE", "P50", "P95"),
        [
            (
                one.task,
                str(one.handled),
                f"{one.per_minute:.1f}",
                str(one.failed),
                f"{one.error_rate:.1%}",
                _latency(one.p50),
                _latency(one.p95),
            )
            for one in summarise(results)
        ],
    )
    if health and health.lag is not None:
        echo(f"Block lag: {health.lag} (last block handled: {'-' if health.last_block is None else health.last_block})")
    if not (series := series_of(results)):
        return
    echo()
    if plot:
        for name, points in series.items():
            echo_text(_chart(name, points))
        return
    rows = []
    for name, points in series.items():
        values = [value for _, value in points]
        numbers = (values[-1], sum(values) / len(values), min(values), max(values))
        rows.append((name, str(len(values)), *(f"{number:g}" for number in numbers)))
    show_table(("METRIC", "POINTS", "LATEST", "MEAN", "MIN", "MAX"), rows)


def _latency(seconds: float) -> str:
    """Return an execution time as it is shown; the bot SDK rounds to 10 ms."""
    return f"{seconds * 1000:.0f} ms" if seconds else "<5 ms"


def _chart(name: str, points: Sequence[tuple[datetime, float]]) -> str:
    """Return a chart of one metric as text, as wide as the terminal; times are local."""
    try:
        import plotext
    except ImportError:
        raise click.ClickException('--plot needs plotext: pip install "ape-silverback[metrics]"') from None
    first, last = points[0][0], points[-1][0]
    plotext.clear_figure()
    plotext.theme("clear")
    plotext.plotsize(shutil.get_terminal_size((100, 24)).columns, CHART_HEIGHT)
    plotext.title(safe_line(name))
    plotext.plot([moment.timestamp() for moment, _ in points], [value for _, value in points])
    ticks = [first + share * (last - first) for share in (0, 0.25, 0.5, 0.75, 1)]
    shape = "%H:%M:%S" if last - first < timedelta(days=1) else "%m-%d %H:%M"
    plotext.xticks([tick.timestamp() for tick in ticks], [f"{local_time(tick):{shape}}" for tick in ticks])
    return plain(plotext.build())


def _csv_lines(results: Sequence[BotTaskResult]) -> Iterator[str]:
    names = list(dict.fromkeys(name for one in results for name in one.metrics))
    yield _csv_line(["completed", "task", "execution_time", "error", "block_number", *names])
    for one in results:
        row = [one.completed.isoformat(), one.task, one.execution_time, one.error, one.block_number]
        yield _csv_line([*row, *(one.metrics.get(name) for name in names)])


def _csv_line(cells: Sequence[object]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(cells)
    return line.getvalue()


def _write_parquet(results: Iterable[BotTaskResult], output: Path) -> None:
    from ape_silverback.cluster.task_results import frame_of

    frame = frame_of(results, tasks=True)
    try:
        frame.to_parquet(output)
    except ImportError:
        raise click.ClickException('Parquet needs pyarrow: pip install "ape-silverback[metrics]"') from None
    except OSError as error:
        raise click.ClickException(f"{output}: can't be written: {error.strerror}") from None


def _write(lines: Iterable[str], output: Path | None) -> None:
    if output is None:
        for line in lines:
            echo_text(line)
        return
    try:
        with output.open("w", encoding="utf8", newline="") as file:
            file.writelines(f"{line}\n" for line in lines)
    except OSError as error:
        raise click.ClickException(f"{output}: can't be written: {error.strerror}") from None
