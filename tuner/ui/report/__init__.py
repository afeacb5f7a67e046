"""One self-contained HTML page on a study: the verdict, the search in figures, the winner and what it gets wrong."""

from tuner.ui.report.page import report_page, write_report

__all__ = ["report_page", "write_report"]
