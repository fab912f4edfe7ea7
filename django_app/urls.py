"""Procedures over HTTP: `path("lrp/", include("django_app.urls"))` mounts them."""

import re
from typing import Any, cast

from django.urls import path

from django_app.api.views import VIEWS

app_name = "lrp_celery"
urlpatterns = [
    path(re.sub(r"{(\w+)}", r"<str:\1>", form), cast(Any, view), name=name)  # an object that is called like one
    for name, (form, view) in VIEWS.items()
]
