"""What lrp_celery costs, measured beside plain Celery and others in one run. Start a script with `python -m benchmarks.NAME`.

- `cost`: CPU, rates, log and commits per call, of tracking; `owning`: CPU of procedures.
- `loss`: what is lost when workers are killed.
- `lag`: how soon a row shows an end; `latency`: how soon a result wakes its waiter; `aborting`: how soon an abort ends a call.
- `fill`: millions of rows; `admin`: what its pages ask of them; `purge`: what deleting half of them costs.

Each starts servers of its own, unless `BENCH_PG` and `BENCH_BROKER` name some, and says in its docstring what it does.
"""
