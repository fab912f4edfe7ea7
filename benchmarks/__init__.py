"""What lrp_celery costs, measured beside plain Celery in one run. Start a script with `python -m benchmarks.NAME`."""
