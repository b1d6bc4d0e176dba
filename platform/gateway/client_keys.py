"""Before a client is authenticated: have the keys it publishes at hand, fetched outside any transaction."""

from datetime import datetime

from partners.oauth.claimed import read_claimed
from partners.registry.directory import AppDirectory
from partners.registry.jwks import KeyFetcher


class ClientKeys:
    """One per process."""

    def __init__(self, directory: AppDirectory, fetcher: KeyFetcher) -> None:
        self._directory = directory
        self._fetcher = fetcher

    async def prepare(self, body: bytes, *, now: datetime) -> None:
        """See to it that the keys of the client the request claims to come from are fresh."""
        claimed = read_claimed(body)
        if claimed is None:
            return
        client = await self._directory.find(claimed.client_id)
        if client is None or client.jwks_uri is None:
            return
        if await self._fetcher.refresh(client, claimed.kid, now=now):
            self._directory.forget(client.client_id)
