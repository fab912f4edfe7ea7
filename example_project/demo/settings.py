"""The example's own settings, placed into the folder of one demo."""

import os
from pathlib import Path

from config.settings import *  # noqa: F403
from config.settings import CELERY_BROKER_URL
from kombu import Exchange, Queue
from kombu.transport import TRANSPORT_ALIASES

RUN = Path(os.environ["DEMO_RUN"])

DEBUG = True
ROOT_URLCONF = "demo.urls"

if CELERY_BROKER_URL.startswith("filesystem:"):
    TRANSPORT_ALIASES["filesystem"] = "demo.files:Transport"
    CELERY_BROKER_TRANSPORT_OPTIONS = {
        "data_folder_in": str(RUN / "messages"),
        "data_folder_out": str(RUN / "messages"),
        "control_folder": str(RUN / "control"),
        "polling_interval": 0.1,
    }

# Somebody's own broker may serve other projects and other demos: their calls must not meet.
if queue := os.environ.get("DEMO_QUEUE"):
    CELERY_TASK_DEFAULT_QUEUE = queue
    CELERY_TASK_QUEUES = [Queue(queue, Exchange(queue, auto_delete=True), routing_key=queue, auto_delete=True)]
