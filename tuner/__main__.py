"""`python -m tuner`, and the `tuner` script."""

from tuner.interrupts import leave_at_once


def main() -> None:
    """Run the command line."""
    leave_at_once()
    from tuner.cli import main as run_command

    run_command()


if __name__ == "__main__":
    main()
