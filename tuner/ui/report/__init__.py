"""One self-contained HTML page on a study: the verdict, figures of the search, the winner and its mistakes."""

from tuner.ui.report.page import report_page, write_report

__all__ = ["report_page", "write_report"]
