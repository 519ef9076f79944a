"""``python -m skyset.cli``."""

from skyset.cli import main

if __name__ == "__main__":
    main()
