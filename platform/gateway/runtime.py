"""What one process needs to answer requests: pools, clock, keys, verifier, limiter; opened and closed together."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import structlog
from redis.asyncio import Redis

from gateway.attempts import AttemptGate
from gateway.client_keys import ClientKeys
from gateway.limits import Limiter
from gateway.proxies import Proxies
from gateway.writer import LedgerWriter
from kernel.aside import Aside
from kernel.clock import DatabaseClock
from kernel.database import AWAY, Connection, Pool, acquire, open_pool, tell_time, transaction
from kernel.errors import Refusal
from kernel.outbound import open_client
from kernel.pages import CursorSeal
from kernel.redis_client import open_redis
from kernel.settings import Settings
from kernel.vault import Vault
from partners.login.delivery import CodeSender, SandboxSender
from partners.login.passwords import PasswordDesk
from partners.mobile.access import MemberVerifier
from partners.mobile.tokens import Bank
from partners.oauth.access import AccessVerifier
from partners.oauth.keys import Signer, load_signer
from partners.oauth.nonce import Nonces
from partners.oauth.revocations import RevocationList
from partners.oauth.service import PairwiseSubjects
from partners.oauth.sm2_keys import Sm2Signer, load_sm2_signer
from partners.registry.directory import AppDirectory
from partners.registry.jwks import KeyFetcher

log = structlog.get_logger("runtime")

CLOCK_SECONDS = 5.0


class Runtime:
    """One process's share of the system. Attributes other than `settings` exist between open and close."""

    pool: Pool
    redis: Redis
    clock: DatabaseClock
    vault: Vault
    signer: Signer
    sm2_signer: Sm2Signer | None
    directory: AppDirectory
    verifier: AccessVerifier
    bank: Bank
    member_verifier: MemberVerifier
    subjects: PairwiseSubjects
    limiter: Limiter
    attempts: AttemptGate
    client_keys: ClientKeys
    proxies: Proxies
    writer: LedgerWriter
    aside: Aside
    cursors: CursorSeal
    nonces: Nonces
    #: None until the bank joins its messaging: members then have no codes sent
    code_sender: CodeSender | None
    passwords: PasswordDesk

    def __init__(self, settings: Settings) -> None:
        assert settings.database_url and settings.redis_url and settings.master_keys and settings.base_url
        self.settings = settings
        self.base_url = settings.base_url
        self.clock = DatabaseClock()
        self.proxies = Proxies(settings)

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[None, None]:
        """Everything a process holds, for as long as the block runs."""
        settings = self.settings
        assert settings.database_url and settings.redis_url and settings.master_keys
        self.vault = Vault(settings.master_keys.reveal())
        self.cursors = CursorSeal(self.vault.key("cursor"))
        self.nonces = Nonces(self.vault.key("dpop-nonce"))
        self.code_sender = SandboxSender(self.vault) if settings.mode == "sandbox" else None
        self.passwords = PasswordDesk()
        self.pool = await open_pool(
            settings.database_url.reveal(),
            size=settings.pool_size,
            statement_timeout_ms=settings.statement_timeout_ms,
            lock_timeout_ms=settings.lock_timeout_ms,
        )
        self.redis = open_redis(settings.redis_url.reveal())
        try:
            async with acquire(self.pool) as connection:
                await tell_time(self.clock, connection)
            async with transaction(self.pool) as connection:
                self.signer = await load_signer(
                    connection, vault=self.vault, issuer=self.base_url, now=self.clock.now()
                )
                self.sm2_signer = await load_sm2_signer(connection, vault=self.vault, now=self.clock.now())
            if self.sm2_signer is None:
                log.warning("sm2_off", reason="no OpenSSL 3 with SM2 on this system")
            self.subjects = PairwiseSubjects()
            self.directory = AppDirectory(self.pool)
            fetches = open_client()
            self.client_keys = ClientKeys(
                self.directory, KeyFetcher(self.pool, fetches, loopback=settings.mode == "sandbox")
            )
            self.attempts = AttemptGate(
                self.pool,
                requests_per_minute=settings.token_requests_per_minute,
                failures_per_minute=settings.token_failures_per_minute,
            )
            self.verifier = AccessVerifier(
                signer=self.signer,
                resource=f"{self.base_url}/v1",
                base_url=self.base_url,
                directory=self.directory,
                revocations=RevocationList(self.pool),
                livemode=settings.mode == "live",
            )
            self.bank = Bank(
                signer=self.signer,
                vault=self.vault,
                base_url=self.base_url,
                livemode=settings.mode == "live",
            )
            self.member_verifier = MemberVerifier(bank=self.bank, pool=self.pool)
            self.aside = Aside()
            self.limiter = Limiter(self.redis, share=1 / settings.workers)
            self.writer = LedgerWriter(self.pool, vault=self.vault, subjects=self.subjects)
            keeper = asyncio.create_task(self._keep_time(), name="clock")
            try:
                yield
            finally:
                await self.writer.close()
                self.aside.close()
                await fetches.aclose()
                keeper.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await keeper
        finally:
            self.passwords.close()
            await self.redis.aclose()
            try:
                await asyncio.wait_for(self.pool.close(), 5)
            except TimeoutError:
                self.pool.terminate()

    async def reload_keys(self, connection: Connection) -> None:
        """Sign and verify with the keys as they are now; tokens of one that is gone end here."""
        if await self.signer.reload(connection, self.vault):
            self.verifier.forget()
            log.info("signing_keys_reloaded", kid=self.signer.kid)

    async def _keep_time(self) -> None:
        """Read the database's clock and the signing keys again and again; while it is away, what is known carries on."""
        while True:
            await asyncio.sleep(CLOCK_SECONDS)
            try:
                async with acquire(self.pool) as connection:
                    await tell_time(self.clock, connection)
                    await self.reload_keys(connection)
            except (Refusal, *AWAY) as failure:
                log.warning("clock_not_read", error=type(failure).__name__)
