"""Procedures over HTTP, as `contract` describes them; `django_app.urls` mounts them."""
