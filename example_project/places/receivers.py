"""What follows when a call has ended, whoever ran it."""

from typing import Any

from django.conf import settings
from django.core.mail import send_mail

from lrp_celery import CallSnapshot, CallStatus

#: Failures that somebody should hear of; what was called off, or has expired, is none.
ALARMING = {CallStatus.FAILED, CallStatus.PARKED}


def write_to_editors(snapshot: CallSnapshot, **_: Any) -> None:
    """Tell the editors that a call has failed. They may be told twice of one, so its id is in the subject."""
    if snapshot.status in ALARMING:
        subject = f"{snapshot.task} failed ({snapshot.call_id})"
        text = f"{snapshot.target_summary}\n\n{snapshot.error_type}: {snapshot.last_error}"
        send_mail(subject, text, None, settings.EDITORS)
