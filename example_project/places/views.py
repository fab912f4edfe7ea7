"""A page on which a report is ordered, watched and called off."""

from django.contrib.admin.views.decorators import staff_member_required
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_http_methods, require_POST

from lrp_celery import CallStatus

from .models import Import
from .tasks import build_report


@staff_member_required
@require_http_methods(["GET", "POST"])
def report(request: HttpRequest, number: int) -> HttpResponse:
    """Show how far the report on an import is; by POST, order one."""
    if request.method == "POST":
        _order_report(number, request.user.get_username())
        return redirect("report", number)
    source = get_object_or_404(Import, pk=number)
    call = build_report.get_call(source.report_call) if source.report_call else None
    is_written = call is not None and call.status is CallStatus.SUCCEEDED
    written = build_report.get_result(source.report_call, wait=0) if is_written else None
    return render(request, "places/report.html", {"import": source, "call": call, "report": written})


@staff_member_required
@require_POST
def abort_report(request: HttpRequest, number: int) -> HttpResponse:
    """Call the report off; one that is written already stays."""
    source = get_object_or_404(Import, pk=number)
    build_report.abort(source.report_call, reason="called off on its page", by=request.user.get_username())
    return redirect("report", number)


def _order_report(number: int, owner: str) -> None:
    """Call for a report, and note the call with the import: both, or neither."""
    with transaction.atomic():
        source = get_object_or_404(Import.objects.select_for_update(), pk=number)
        source.report_call = build_report.using(owner=owner).call(source.pk)
        source.save(update_fields=["report_call"])
