"""The companion to the paper: tables, figures, reports, the runner of the notebooks."""
