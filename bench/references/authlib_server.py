"""A reference: Authlib's client-credentials endpoint in Flask with Flask-SQLAlchemy, as its documentation sets it up.

Clients authenticate with client_secret_basic, tokens are opaque and stored in PostgreSQL in a commit each. Run by gunicorn;
`python authlib_server.py` makes the tables.
"""

import os

from authlib.integrations.flask_oauth2 import AuthorizationServer
from authlib.integrations.sqla_oauth2 import (
    OAuth2ClientMixin,
    OAuth2TokenMixin,
    create_query_client_func,
    create_save_token_func,
)
from authlib.oauth2.rfc6749 import grants
from flask import Flask
from flask_sqlalchemy import SQLAlchemy

app = Flask(__name__)
app.config["SQLALCHEMY_DATABASE_URI"] = os.environ["REFERENCE_DATABASE"]
db = SQLAlchemy(app)


class Client(db.Model, OAuth2ClientMixin):
    """Who may ask."""

    __tablename__ = "oauth2_client"
    id = db.Column(db.Integer, primary_key=True)


class Token(db.Model, OAuth2TokenMixin):
    """What was given."""

    __tablename__ = "oauth2_token"
    id = db.Column(db.Integer, primary_key=True)
    user_id = db.Column(db.Integer)


server = AuthorizationServer(
    app,
    query_client=create_query_client_func(db.session, Client),
    save_token=create_save_token_func(db.session, Token),
)
server.register_grant(grants.ClientCredentialsGrant)


@app.route("/token", methods=["POST"])
def issue_token():
    return server.create_token_response()


if __name__ == "__main__":
    with app.app_context():
        db.create_all()
        client = Client(client_id="bench", client_secret="secret")
        client.set_client_metadata(
            {
                "scope": "read write",
                "grant_types": ["client_credentials"],
                "token_endpoint_auth_method": "client_secret_basic",
            }
        )
        db.session.add(client)
        db.session.commit()
