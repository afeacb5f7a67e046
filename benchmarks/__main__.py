"""`python -m benchmarks`: every process that trains imports this file, too, and so it imports little."""

from tuner.interrupts import leave_at_once, say_restart


def main() -> None:
    """Run the command line."""
    leave_at_once()
    say_restart()
    from benchmarks.cli import main as run_command

    run_command()


if __name__ == "__main__":
    main()
