"""The tables: a row for each call, and one for each run that did not simply succeed.

Rows are written by `django_app.stores`, which decides by the rules of
`lrp_celery.tracking.merge`; nothing else saves a `Call` or an `Attempt`.
"""

from __future__ import annotations

from django.db import models
from django.db.models import F, Q
from django.db.models.lookups import Exact, In, IsNull
from django.utils.translation import gettext_lazy as _

from django_app.fields import CallIdField
from django_app.querysets import CallQuerySet
from django_app.rollups import RollupQuerySet
from lrp_celery.procedures.actions import Deed
from lrp_celery.tracking.status import OPEN, TERMINAL, CallStatus
from lrp_celery.tracking.store import MAX_ERROR, MAX_NAME, MAX_SUMMARY

STATUS_LABELS = {
    CallStatus.SUBMITTED: _("submitted"),
    CallStatus.STARTED: _("started"),
    CallStatus.RETRYING: _("retrying"),
    CallStatus.SUCCEEDED: _("succeeded"),
    CallStatus.FAILED: _("failed"),
    CallStatus.PARKED: _("parked"),
    CallStatus.ABORTED: _("aborted"),
    CallStatus.DISCARDED: _("discarded"),
}
DEED_LABELS = {
    Deed.ABORT: _("abort"),
    Deed.RERUN: _("rerun"),
    Deed.RESEND: _("send again"),
    Deed.HANDLE: _("mark handled"),
    Deed.REMOVE: _("remove"),
}
TERMINAL_VALUES = sorted(status.value for status in TERMINAL)
OPEN_VALUES = sorted(status.value for status in OPEN)
FAILED_VALUES = [CallStatus.FAILED.value, CallStatus.PARKED.value]


class Call(models.Model):
    """One invocation of a task, from the moment somebody asked for it to its one outcome."""

    # Counts are plain integers: PostgreSQL prepares each check of a table anew for each write, and a dozen of them
    # took it longer than writing.

    call_id = CallIdField(_("call id"), primary_key=True, help_text=_("The Celery task id."))
    task = models.CharField(_("task"), max_length=MAX_NAME)
    status = models.CharField(_("status"), max_length=16, choices=[(s.value, STATUS_LABELS[s]) for s in CallStatus])
    reason = models.CharField(_("reason"), max_length=20, null=True)
    retries = models.IntegerField(_("retries"), default=0)
    attempt = models.IntegerField(_("attempt"), default=0, help_text=_("The newest run, counted from 1."))
    queue = models.CharField(_("queue"), max_length=MAX_NAME, null=True)
    worker = models.CharField(_("worker"), max_length=MAX_NAME, null=True)
    target_summary = models.CharField(
        _("arguments"), max_length=MAX_SUMMARY, null=True, help_text=_("Shortened, and redacted by key.")
    )
    source_instance_id = models.CharField(_("published by host"), max_length=MAX_NAME, null=True)
    source_script = models.CharField(_("published by code"), max_length=MAX_NAME, null=True)
    source_node = models.CharField(_("published by process"), max_length=MAX_NAME, null=True)
    owner = models.CharField(_("owner"), max_length=MAX_NAME, null=True)
    last_error = models.CharField(_("last error"), max_length=MAX_ERROR, null=True)
    error_type = models.CharField(_("error type"), max_length=MAX_NAME, null=True)
    http_status = models.IntegerField(_("HTTP status"), null=True)
    root_id = CallIdField(_("root call"), null=True)
    parent_id = CallIdField(_("parent call"), null=True)
    group_id = CallIdField(_("group"), null=True)
    schedule = models.CharField(_("schedule"), max_length=MAX_NAME, null=True)
    rerun_of = CallIdField(_("rerun of"), null=True)
    progress = models.TextField(_("progress"), null=True)
    enqueued_at = models.DateTimeField(_("enqueued"))
    started_at = models.DateTimeField(_("started"), null=True)
    updated_at = models.DateTimeField(_("updated"))
    terminal_at = models.DateTimeField(_("ended"), null=True)
    deadline_at = models.DateTimeField(_("deadline"), null=True)
    expires_at = models.DateTimeField(_("must start before"), null=True)
    purge_at = models.DateTimeField(_("purged after"), null=True)
    abort_requested_at = models.DateTimeField(_("abort requested"), null=True)

    handled_at = models.DateTimeField(_("handled"), null=True)
    handled_by = models.CharField(_("handled by"), max_length=MAX_NAME, null=True)
    due_at = models.DateTimeField(_("due"), null=True)
    published_at = models.DateTimeField(_("published"), null=True)
    nesting = models.IntegerField(_("replacements"), default=0)
    runs = models.IntegerField(_("runs"), default=0)
    late_runs = models.IntegerField(_("late runs"), default=0)
    run = models.CharField(max_length=64, null=True)
    run_outcome = models.CharField(max_length=16, null=True)
    pid = models.BigIntegerField(_("process"), null=True)
    redelivered = models.BooleanField(_("redelivered"), default=False)
    acks_late = models.BooleanField(_("acknowledged late"), default=False)
    stop_reason = models.CharField(max_length=20, null=True)
    version = models.IntegerField(default=0)

    app = models.CharField(_("Celery app"), max_length=MAX_NAME, null=True)
    owned = models.BooleanField(_("owned"), default=False, help_text=_("A procedure's call."))
    generation = models.IntegerField(default=0)
    idempotent = models.BooleanField(_("idempotent"), default=False)
    max_attempts = models.IntegerField(default=1)
    losses = models.IntegerField(_("workers lost"), default=0)
    grace = models.FloatField(default=0)
    time_to_live = models.FloatField(_("time to live"), null=True)
    until_removed = models.BooleanField(_("kept until removed"), default=False)
    keep_result = models.BooleanField(default=True)
    lease_until = models.DateTimeField(_("lease ends"), null=True)
    send_at = models.DateTimeField(_("sent again"), null=True)
    sends = models.IntegerField(_("times sent again"), default=0)
    attend_at = models.DateTimeField(null=True)
    abort_reason = models.CharField(_("abort reason"), max_length=MAX_ERROR, null=True)
    abort_by = models.CharField(_("aborted by"), max_length=MAX_NAME, null=True)
    abort_force = models.BooleanField(_("aborted by force"), default=False)
    removed_at = models.DateTimeField(_("removed"), null=True)
    remove_when_settled = models.BooleanField(default=False)
    awaited = models.BooleanField(default=False)
    lines = models.IntegerField(default=0)
    counted_at = models.DateTimeField(null=True)
    tell_at = models.DateTimeField(null=True)

    objects = CallQuerySet.as_manager()

    class Meta:
        verbose_name = _("call")
        verbose_name_plural = _("calls")
        default_permissions = ("view",)
        permissions = [
            ("start_call", "Can start call"),
            ("abort_call", "Can abort call"),
            ("abort_tree", "Can abort call and what came of it"),
            ("rerun_call", "Can run call again"),
            ("resend_call", "Can send call again"),
            ("handle_call", "Can mark failed call as handled"),
            ("remove_call", "Can remove call"),
        ]
        ordering = ("-enqueued_at", "-call_id")
        indexes = [
            # Without the id: PostgreSQL would look for one by it, as long as it knows nothing of the tables' sizes.
            models.Index(fields=["enqueued_at"], name="lrp_call_enqueued"),
            models.Index(fields=["task", "-enqueued_at"], name="lrp_call_task"),
            models.Index(fields=["-enqueued_at"], name="lrp_call_open", condition=Q(terminal_at__isnull=True)),
            models.Index(fields=["-enqueued_at"], name="lrp_call_failed", condition=Q(status__in=FAILED_VALUES)),
            models.Index(
                fields=["-enqueued_at"],
                name="lrp_call_unhandled",
                condition=Q(status__in=FAILED_VALUES, handled_at__isnull=True),
            ),
            # What of one task has failed: without it, all that has failed would be read, or all of the task.
            models.Index(
                fields=["task", "-enqueued_at"], name="lrp_call_failed_task", condition=Q(status__in=FAILED_VALUES)
            ),
            models.Index(
                fields=["status", "terminal_at"], name="lrp_call_ended", condition=Q(terminal_at__isnull=False)
            ),
            models.Index(fields=["root_id"], name="lrp_call_descendants", condition=~Q(root_id=F("call_id"))),
            models.Index(fields=["app", "attend_at"], name="lrp_call_attend", condition=Q(attend_at__isnull=False)),
            # The column in front is for MySQL, whose index has every row.
            models.Index(
                fields=["counted_at", "terminal_at"],
                name="lrp_call_uncounted",
                condition=Q(terminal_at__isnull=False, counted_at__isnull=True),
            ),
            models.Index(fields=["tell_at"], name="lrp_call_tell", condition=Q(tell_at__isnull=False)),
            models.Index(fields=["removed_at"], name="lrp_call_removed", condition=Q(removed_at__isnull=False)),
            models.Index(fields=["purge_at"], name="lrp_call_purge", condition=Q(purge_at__isnull=False)),
        ]
        constraints = [
            # Said so briefly because PostgreSQL reads and prepares the text of it anew for each write.
            models.CheckConstraint(
                name="lrp_call_terminal_has_time",
                condition=Q(Exact(IsNull(F("terminal_at"), True), In(F("status"), OPEN_VALUES))),  # noqa: FBT003
            ),
        ]

    def __str__(self) -> str:
        return f"{self.task} {self.call_id}"

    @property
    def is_terminal(self) -> bool:
        """Whether the call has ended and will not change again."""
        return self.terminal_at is not None


class Attempt(models.Model):
    """One run of a call that did not simply succeed, or was not the last one.

    `outcome` empty: nobody has reported its end. `late`: it ran, or ended, after the call had its outcome.
    """

    call = models.ForeignKey(
        Call, on_delete=models.CASCADE, related_name="attempts", db_index=False, verbose_name=_("call")
    )
    run = models.CharField(max_length=64)
    number = models.IntegerField(_("attempt"))
    retries = models.IntegerField(_("retries"), default=0)
    nesting = models.IntegerField(_("replacements"), default=0)
    worker = models.CharField(_("worker"), max_length=MAX_NAME, null=True)
    pid = models.BigIntegerField(_("process"), null=True)
    redelivered = models.BooleanField(_("redelivered"), default=False)
    late = models.BooleanField(_("late"), default=False)
    started_at = models.DateTimeField(_("started"), null=True)
    ended_at = models.DateTimeField(_("ended"), null=True)
    outcome = models.CharField(_("outcome"), max_length=16, null=True)
    error_type = models.CharField(_("error type"), max_length=MAX_NAME, null=True)
    last_error = models.CharField(_("error"), max_length=MAX_ERROR, null=True)
    traceback = models.TextField(_("traceback"), null=True)

    class Meta:
        verbose_name = _("attempt")
        verbose_name_plural = _("attempts")
        default_permissions = ("view",)
        ordering = ("number",)
        constraints = [models.UniqueConstraint(fields=["call", "run"], name="lrp_attempt_run")]

    def __str__(self) -> str:
        return f"{self.call_id} #{self.number}"


class Payload(models.Model):
    """What is kept of an owned call beside its row: its message, what it returned, what it raised; as JSON.

    Text, for a JSON column would refuse some texts and reorder others. Apart from the row,
    so that no list ever reads it.
    """

    # Written and deleted together with the row: a constraint would only look that up once more.
    call = models.OneToOneField(
        Call,
        on_delete=models.CASCADE,
        primary_key=True,
        related_name="payload",
        db_constraint=False,
        verbose_name=_("call"),
    )
    message = models.TextField(_("message"), null=True)
    result = models.TextField(_("result"), null=True)
    error = models.TextField(_("error"), null=True)

    class Meta:
        verbose_name = _("payload")
        verbose_name_plural = _("payloads")
        default_permissions = ("view",)

    def __str__(self) -> str:
        return str(self.pk)


class LogLine(models.Model):
    """Something that an owned call has logged, in its own words."""

    call = models.ForeignKey(Call, on_delete=models.CASCADE, related_name="log", db_index=False, verbose_name=_("call"))
    number = models.IntegerField(_("line"))
    at = models.DateTimeField(_("time"))
    text = models.CharField(_("text"), max_length=MAX_SUMMARY)

    class Meta:
        verbose_name = _("log line")
        verbose_name_plural = _("log lines")
        default_permissions = ("view",)
        ordering = ("number",)
        constraints = [models.UniqueConstraint(fields=["call", "number"], name="lrp_logline_number")]

    def __str__(self) -> str:
        return str(self.text)


class Worker(models.Model):
    """A worker that looks after owned calls, and when it was last heard of."""

    boot_id = models.CharField(max_length=64, primary_key=True)
    name = models.CharField(_("worker"), max_length=MAX_NAME)
    host = models.CharField(_("host"), max_length=MAX_NAME)
    pid = models.BigIntegerField(_("process"))
    pool = models.CharField(_("pool"), max_length=MAX_NAME)
    started_at = models.DateTimeField(_("started"))
    seen_at = models.DateTimeField(_("last seen"))
    waiting = models.BigIntegerField(_("bytes in its spools"), default=0)
    dropped = models.BigIntegerField(_("reports dropped"), default=0)

    class Meta:
        verbose_name = _("worker")
        verbose_name_plural = _("workers")
        default_permissions = ("view",)
        ordering = ("-seen_at",)

    def __str__(self) -> str:
        return str(self.name)


class HourlyRollup(models.Model):
    """How calls of a task ended within an hour: how many by one outcome, and how long they waited and ran.

    `Call.counted_at` tells of each call whether it is among them; they stay when its row is purged.
    """

    key = models.CharField(max_length=32, primary_key=True, help_text=_("A digest of what is counted here."))
    hour = models.DateTimeField(_("hour"), help_text=_("When it began."))
    task = models.CharField(_("task"), max_length=MAX_NAME)
    status = models.CharField(_("status"), max_length=16, choices=[(s.value, STATUS_LABELS[s]) for s in CallStatus])
    error_type = models.CharField(_("error type"), max_length=MAX_NAME, help_text=_("Of failures; else empty."))
    calls = models.BigIntegerField(_("calls"), default=0)
    waits = models.TextField(_("waits"), default="")
    runs = models.TextField(_("runs"), default="")

    objects = RollupQuerySet.as_manager()

    class Meta:
        # As the admin lists it, where whoever may view calls may look at it.
        verbose_name = _("dashboard")
        verbose_name_plural = _("dashboard")
        default_permissions = ()
        ordering = ("-hour",)
        indexes = [models.Index(fields=["hour"], name="lrp_rollup_hour")]

    def __str__(self) -> str:
        return f"{self.hour:%Y-%m-%d %H}h {self.task} {self.status}"


class ActionLog(models.Model):
    """What somebody did to a call. It outlives the call, so that it names the call instead of pointing to it."""

    at = models.DateTimeField(_("when"))
    by = models.CharField(_("by"), max_length=MAX_NAME, null=True, help_text=_("Empty: the code did not say."))
    deed = models.CharField(_("action"), max_length=16, choices=[(d.value, DEED_LABELS[d]) for d in Deed])
    call_id = CallIdField(_("call id"))
    reason = models.CharField(_("reason"), max_length=MAX_ERROR, null=True)
    outcome = models.CharField(_("outcome"), max_length=MAX_NAME)

    class Meta:
        verbose_name = _("action")
        verbose_name_plural = _("actions")
        default_permissions = ("view",)
        ordering = ("-at", "-id")
        indexes = [
            models.Index(fields=["-at"], name="lrp_action_at"),
            models.Index(fields=["call_id", "-at"], name="lrp_action_call"),
        ]

    def __str__(self) -> str:
        return f"{self.deed} {self.call_id}"
