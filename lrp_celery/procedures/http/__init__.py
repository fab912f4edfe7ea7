"""Procedures of another service, called over HTTP; needs the extra `http`, and neither Django nor a broker."""

from lrp_celery.procedures.http.procedure import HttpProcedure

__all__ = ["HttpProcedure"]
