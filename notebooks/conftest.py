"""nbval: what is never compared, since it differs between machines that agree."""


def pytest_collectstart(collector):
    if hasattr(collector, "skip_compare"):  # a notebook
        # Warnings and progress bars go to stderr; a frame's HTML repeats its text.
        collector.skip_compare += ("stderr", "text/html")
