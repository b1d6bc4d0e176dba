"""A reference: django-oauth-toolkit's token endpoint, as its documentation sets it up, on PostgreSQL.

The client's secret is stored plain: hashed, as it is by default, a token takes a third of a second. Run by gunicorn;
`python toolkit_server.py` makes the tables.
"""

import os

import django
from django.conf import settings

settings.configure(
    SECRET_KEY="of the reference",
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    USE_TZ=True,
    MIDDLEWARE=["django.middleware.common.CommonMiddleware"],
    INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "oauth2_provider"],
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.postgresql",
            "HOST": os.environ["PGHOST"],
            "PORT": os.environ["PGPORT"],
            "USER": os.environ["PGUSER"],
            "PASSWORD": os.environ["PGPASSWORD"],
            "NAME": os.environ["PGDATABASE"],
            "CONN_MAX_AGE": None,
        }
    },
    OAUTH2_PROVIDER={"SCOPES": {"read": "read", "write": "write"}},
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
)
django.setup()

from django.core.management import call_command  # settings come first
from django.core.wsgi import get_wsgi_application
from django.urls import path
from oauth2_provider.models import Application
from oauth2_provider.views import TokenView

urlpatterns = [path("token", TokenView.as_view())]

if __name__ == "__main__":
    call_command("migrate", verbosity=0)
    Application.objects.create(
        name="bench",
        client_id="bench",
        client_secret="secret",
        hash_client_secret=False,
        client_type=Application.CLIENT_CONFIDENTIAL,
        authorization_grant_type=Application.GRANT_CLIENT_CREDENTIALS,
    )
else:
    app = get_wsgi_application()
