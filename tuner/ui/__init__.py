"""The user interface: live view, tables, report and dashboard. It decides nothing."""
