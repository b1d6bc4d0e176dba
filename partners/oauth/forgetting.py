"""What time has ended on the way to a token: requests nobody answered, codes, refresh tokens left idle, old revocations."""

from datetime import datetime, timedelta

from kernel.database import Connection
from partners.oauth import backchannel_queries, flow_queries, refresh_queries
from partners.oauth.exchange import IDLE

#: so long a code that comes a second time still ends what came of it the first time
MEMORY = timedelta(days=1)
#: a request is of no use to anybody once its page has ended
REQUEST_MEMORY = timedelta(hours=1)


async def forget_flows(connection: Connection, *, now: datetime) -> None:
    """Decided elsewhere, at the moment of use; here the tables are kept short, ten thousand rows at a time."""
    await flow_queries.expire_requests(connection, now=now)
    await flow_queries.forget_requests(connection, before=now - REQUEST_MEMORY)
    await backchannel_queries.forget_backchannel(connection, before=now - MEMORY)
    await flow_queries.forget_codes(connection, before=now - MEMORY)
    await flow_queries.forget_revocations(connection, now=now)
    await refresh_queries.forget_refresh(connection, before=now - IDLE - MEMORY)
