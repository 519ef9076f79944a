"""The full run: ``python -m tests.hostile --cases 100000``, or ``--only 4711 string:vlen``; see the package."""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from tests.hostile.cases import STRUCTURED
from tests.hostile.engine import ALLOWED
from tests.hostile.workers import not_allowed, run_batch


def message_class(result: dict) -> str:
    """A refusal without its numbers and names, so that like ones are counted together."""
    text = re.sub(r"0x[0-9a-f]+|\d+|'[^']*'", "#", result["detail"])
    text = re.sub(r"column \w+", "column *", text)
    return re.sub(r"column \* is (?!missing|not all|a )\S.*", "column * is of another dtype or shape", text)[:70]


def print_table(results: Sequence[dict], seconds: float, top: int = 15) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("outcome", "class", "cases", title=f"{len(results)} cases, {len(results) / seconds:.0f} a second")
    classes = Counter((r["outcome"], message_class(r) if r["outcome"] == "refused" else "") for r in results)
    shown = classes.most_common(top)
    rest = len(results) - sum(count for _, count in shown)
    for (outcome, text), count in [*shown, (("refused and others", f"{max(0, len(classes) - top)} more classes"), rest)]:
        table.add_row(outcome, text, str(count))
    for outcome, count in Counter(r["outcome"] for r in results).most_common():
        table.add_row(f"all {outcome}", "" if outcome in ALLOWED else "NOT ALLOWED", str(count), style="bold")
    Console().print(table)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Read hostile partitions; exit status 1 if anything not allowed happens.")
    parser.add_argument("--cases", type=int, default=2000)
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("--only", nargs="+", help="these cases alone (numbers or names), each result in full")
    options = parser.parse_args(arguments)
    if options.only:
        results = run_batch([int(case) if case.isdigit() else case for case in options.only])
        print(*map(json.dumps, results), sep="\n")
        return bool(not_allowed(results))
    return run_all(options)


def run_all(options: argparse.Namespace) -> int:
    from tqdm import tqdm

    last = options.first + options.cases
    batches = [range(k, min(k + 500, last)) for k in range(options.first, last, 500)] + [list(STRUCTURED)]
    with tqdm(total=options.cases + len(STRUCTURED), unit="case", dynamic_ncols=True) as bar:
        with ThreadPoolExecutor(options.processes) as pool:
            results = [
                r for batch in pool.map(lambda cases: run_batch(cases, lambda _: bar.update()), batches) for r in batch
            ]
        seconds = bar.format_dict["elapsed"]
    print_table(results, seconds)
    print(*not_allowed(results), sep="\n")
    return bool(not_allowed(results))


if __name__ == "__main__":
    sys.exit(main())
