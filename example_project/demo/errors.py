"""Why a demo ends early."""


class DemoError(Exception):
    """The demo cannot go on; the message says why and what to do."""


class StopRequested(Exception):
    """Somebody asked the demo to stop, with a signal."""
