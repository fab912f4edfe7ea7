"""`python manage.py make_token press`: let another service order reports."""

from argparse import ArgumentParser

from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.core.management.base import BaseCommand

from places.tokens import MAX_AGE, make_token

#: What a service needs that orders reports: the right to call, and the procedure's own.
RIGHTS = (("lrp_celery", "start_call"), ("places", "add_report"))


class Command(BaseCommand):
    """Make a user without a password, who may order reports, and print a token."""

    help = "Prints a token for a user, who is made if need be and may order reports over HTTP."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add the user's name."""
        parser.add_argument("name")

    def handle(self, *args: object, name: str, **options: object) -> None:
        """Print the token, and nothing else, on stdout."""
        user, is_new = get_user_model().objects.get_or_create(username=name)
        if is_new:
            user.set_unusable_password()
            user.save()
        for app, codename in RIGHTS:
            user.user_permissions.add(Permission.objects.get(content_type__app_label=app, codename=codename))
        self.stdout.write(make_token(name))
        self.stderr.write(f"It is good for {MAX_AGE.days} days.")
