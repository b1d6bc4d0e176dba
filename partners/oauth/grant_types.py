"""Every grant type the partner issuer knows, and what it makes of a request."""

from partners.oauth import exchange
from partners.oauth.backchannel import grant_backchannel
from partners.oauth.backchannel_rules import GRANT_TYPE
from partners.oauth.token import Grant

GRANTS: dict[str, Grant] = {**exchange.GRANTS, GRANT_TYPE: grant_backchannel}
