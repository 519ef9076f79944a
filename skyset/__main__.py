"""``python -m skyset`` and the command ``skyset``: light to import, as processes do that the command starts."""

from __future__ import annotations


def main() -> None:
    from skyset.cli import main as run

    run()


if __name__ == "__main__":
    main()
