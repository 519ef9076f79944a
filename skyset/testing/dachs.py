"""The mock SDSS tables for a real TAP service, GAVO DaCHS, so that the client can be tried against it.

::

    apt-get install gavodachs2-server                          # Debian; brings PostgreSQL, which has to run
    python -m skyset.testing.dachs /var/gavo/inputs             # writes sdss_dr17/q.rd and its data
    su dachsroot -c "cd /var/gavo/inputs && dachs imp sdss_dr17/q && dachs serve start"
    SKYSET_DACHS=http://localhost:8080/tap python -m pytest tests/archives/test_tap.py -k dachs

DaCHS names its jobs by its own idea of its address: ``localhost`` here, not 127.0.0.1.
"""

import csv
import sys
from pathlib import Path

import numpy as np

from skyset.testing.sdss import draw_galaxies

SCHEMA = "sdss_dr17"
GALAXIES = 300
TYPES = {"i4": "integer", "i8": "bigint", "f4": "real", "f8": "double precision"}
META = {"title": "SDSS, made up", "creationDate": "2026-01-01T00:00:00Z", "description": "For tests", "subject": "galaxies"}


def tables() -> dict[str, dict[str, np.ndarray]]:
    """What the service holds, by the names without the schema."""
    return {name.partition(".")[2]: table for name, table in draw_galaxies(GALAXIES).tables().items() if SCHEMA in name}


def write(folder: Path) -> None:
    """The resource descriptor and the data that it imports."""
    data = folder / SCHEMA / "data"
    data.mkdir(parents=True, exist_ok=True)
    parts = [f'<meta name="{name}">{text}</meta>' for name, text in META.items()]
    for name, table in tables().items():
        kinds = {column: TYPES[values.dtype.str[1:]] for column, values in table.items()}
        required = {column: ' required="True"' if "int" in kind else "" for column, kind in kinds.items()}
        columns = "".join(
            f'<column name="{column}" type="{kind}"{required[column]} description="{column}"/>'
            for column, kind in kinds.items()
        )
        parts.append(f'<table id="{name}" onDisk="True" adql="True">{columns}</table>')
        make = f'<make table="{name}"><rowmaker idmaps="*"/></make>'
        parts.append(f'<data id="import_{name}"><sources>data/{name}.csv</sources><csvGrammar/>{make}</data>')
        with open(data / f"{name}.csv", "w", newline="") as file:
            csv.writer(file).writerows([list(table), *zip(*(values.tolist() for values in table.values()), strict=True)])
    (folder / SCHEMA / "q.rd").write_text("\n".join([f'<resource schema="{SCHEMA}">', *parts, "</resource>\n"]))


if __name__ == "__main__":
    write(Path(sys.argv[1]))
