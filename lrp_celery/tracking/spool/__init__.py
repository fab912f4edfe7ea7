"""The spool: reports wait in a file of the process that made them until a drainer brings them to the store.

In a folder for each store (`places`), with names by worker (its boot id) and process:

    <boot>.worker            locked as long as the worker's main process lives
    <boot>.<pid>.<n>.spool   the n-th file of a process, locked as long as it writes to it

A report is one `write` (`files`), so that what was written survives the death of everybody but
the host. The drainer is a process of its own (`drainer`): it reads what the processes of its worker
write, is woken by them (`bell`), and tells the store many reports at once. A worker that was killed
leaves files whose locks are free: the next drainer that sees them takes them over, and then knows
which runs have begun and not ended. Reports may be told twice, but not
long after: each file notes how far it was told, so that whoever reads it days later, for its runs, does not
bring back calls that were removed meanwhile. It is removed when it was told and is not written to any more.
"""
