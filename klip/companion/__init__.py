"""The companion to the paper: tables, figures and reports, and the runner of the notebooks."""
