"""Who is it: keys and their digests, and the sign-in of each protocol, as pure functions.

Read in this order: `credentials` (what is issued and what is stored of it), `scram` (SCRAM-SHA-256
for PostgreSQL and MongoDB), `headers` (bearer and basic), `jwt` (HS256) and `sigv4` (AWS). Nothing
here says whether a name is known: unknown names get a mock credential, and the same work and the
same words. Every comparison with something secret takes constant time.
"""

from engines.kit.auth.credentials import SCRAM_ITERATIONS as SCRAM_ITERATIONS
from engines.kit.auth.credentials import SCRAM_ITERATIONS_MAX as SCRAM_ITERATIONS_MAX
from engines.kit.auth.credentials import digest as digest
from engines.kit.auth.credentials import live_secrets as live_secrets
from engines.kit.auth.credentials import make_scram as make_scram
from engines.kit.auth.credentials import make_secret as make_secret
from engines.kit.auth.credentials import mock_credential as mock_credential
from engines.kit.auth.credentials import new_key_id as new_key_id
from engines.kit.auth.credentials import new_salt as new_salt
from engines.kit.auth.credentials import new_secret as new_secret
from engines.kit.auth.credentials import parse_password as parse_password
from engines.kit.auth.credentials import parse_username as parse_username
from engines.kit.auth.credentials import password_of as password_of
from engines.kit.auth.credentials import salt_of as salt_of
from engines.kit.auth.credentials import service_secret as service_secret
from engines.kit.auth.credentials import username_of as username_of
from engines.kit.auth.credentials import verify_password as verify_password
from engines.kit.auth.headers import basic_credentials as basic_credentials
from engines.kit.auth.headers import bearer_token as bearer_token
from engines.kit.auth.jwt import Claims as Claims
from engines.kit.auth.jwt import verify_jwt as verify_jwt
from engines.kit.auth.scram import ScramError as ScramError
from engines.kit.auth.scram import ScramServer as ScramServer
