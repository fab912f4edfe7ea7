"""The admin: pages that say what became of each call, and let those act who may."""

from django_app.admin.audit import ActionLogAdmin
from django_app.admin.calls import CallAdmin
from django_app.admin.dashboard import DashboardAdmin

__all__ = ["ActionLogAdmin", "CallAdmin", "DashboardAdmin"]
