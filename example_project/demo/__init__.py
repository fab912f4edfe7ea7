"""The stage of the demo: a private broker, a worker, beat and a web server, and a story to play.

Nothing here is needed to use lrp_celery; that is shown by `config` and `places`.
"""
