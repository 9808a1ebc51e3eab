"""The settings of the worker that kills itself: those of the tests, a real broker, short leases."""

from weftkit_site.settings import environment as env
from weftkit_site.settings.test import *  # noqa: F403

CELERY_BROKER_URL = env.celery_broker(env.text("WEFTKIT_REDIS_URL"))
CELERY_BROKER_TRANSPORT_OPTIONS = {"global_keyprefix": "kills:"}
OPERATION_LEASE_S = 1
OPERATION_WORK_LEASE_S = 1
OPERATION_WAIT_IN_TASK_S = 0
