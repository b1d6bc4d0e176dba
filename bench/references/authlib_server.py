"""A reference: Authlib's client-credentials endpoint in Flask, as its documentation sets it up, on a SQLite file.

Clients authenticate with client_secret_basic, tokens are opaque and stored in a commit each. Run by gunicorn; `python
authlib_server.py` makes the database.
"""

import os
import sqlite3
import threading
import time

from authlib.integrations.flask_oauth2 import AuthorizationServer
from authlib.oauth2.rfc6749 import ClientMixin, grants
from flask import Flask

DATABASE = os.environ["REFERENCE_DATABASE"]
_local = threading.local()


def connect():
    """This thread's connection, in SQLite's quickest mode that keeps what was committed."""
    if not hasattr(_local, "connection"):
        _local.connection = sqlite3.connect(DATABASE, timeout=30, isolation_level=None)
        _local.connection.execute("PRAGMA journal_mode = WAL")
        _local.connection.execute("PRAGMA synchronous = NORMAL")
    return _local.connection


class Client(ClientMixin):
    """A row of `client`."""

    def __init__(self, client_id, secret, scope):
        self.client_id, self.secret, self.scope = client_id, secret, scope

    def get_client_id(self):
        return self.client_id

    def get_allowed_scope(self, scope):
        allowed = set(self.scope.split())
        return " ".join(one for one in (scope or self.scope).split() if one in allowed)

    def check_client_secret(self, client_secret):
        return self.secret == client_secret

    def check_endpoint_auth_method(self, method, endpoint):
        return method == "client_secret_basic"

    def check_grant_type(self, grant_type):
        return grant_type == "client_credentials"


def query_client(client_id):
    row = connect().execute("SELECT id, secret, scope FROM client WHERE id = ?", (client_id,)).fetchone()
    return None if row is None else Client(*row)


def save_token(token, request):
    connect().execute(
        "INSERT INTO token (access_token, client_id, scope, issued_at, expires_in) VALUES (?, ?, ?, ?, ?)",
        (
            token["access_token"],
            request.client.client_id,
            token["scope"],
            int(time.time()),
            token["expires_in"],
        ),
    )


app = Flask(__name__)
server = AuthorizationServer(app, query_client=query_client, save_token=save_token)
server.register_grant(grants.ClientCredentialsGrant)


@app.route("/token", methods=["POST"])
def issue_token():
    return server.create_token_response()


if __name__ == "__main__":
    connect().executescript(
        "CREATE TABLE client (id text PRIMARY KEY, secret text, scope text);"
        "CREATE TABLE token (access_token text PRIMARY KEY, client_id text, scope text, issued_at int, expires_in int);"
        "INSERT INTO client VALUES ('bench', 'secret', 'read write')"
    )
