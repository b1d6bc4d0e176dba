"""The npm package `oauth4webapi` proves the server; run by `make clients`."""

from contextlib import AbstractAsyncContextManager

import pytest
from clients.flows import *  # these tests are written once for all clients
from clients.member_flows import *  # and so are these
from clients.node import NodeClient
from clients.phone_flows import *  # and these
from clients.third_party import Configure, PublicApp, ThirdParty

from gateway.credentials import Credentials


@pytest.fixture(scope="module")
def configure() -> Configure:
    """The client of an app."""

    def configured(app: Credentials | PublicApp) -> AbstractAsyncContextManager[ThirdParty]:
        return NodeClient.configured("oauth4webapi", app)

    return configured
