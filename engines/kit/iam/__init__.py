"""May this subject do this, there? Policies, roles and the one decision, as pure functions.

Read in this order: `wildcards` (`*` and `?`), `decision` (policies, what they cover, the answer),
`vocabulary` (actions and service roles, in IBM's words), `rights` (what of it a record carries for
a credential, compiled). The control plane, its pages and the data plane all ask `decide`; nobody
looks at a role's name.
"""

from engines.kit.iam.decision import ANYWHERE as ANYWHERE
from engines.kit.iam.decision import Catalogue as Catalogue
from engines.kit.iam.decision import Decision as Decision
from engines.kit.iam.decision import Match as Match
from engines.kit.iam.decision import Operator as Operator
from engines.kit.iam.decision import Policy as Policy
from engines.kit.iam.decision import Scope as Scope
from engines.kit.iam.decision import Target as Target
from engines.kit.iam.decision import actions_of as actions_of
from engines.kit.iam.decision import decide as decide
from engines.kit.iam.decision import includes as includes
from engines.kit.iam.rights import Rights as Rights
from engines.kit.iam.rights import rights_of as rights_of
from engines.kit.iam.rights import scoped_grants as scoped_grants
from engines.kit.iam.vocabulary import RESOURCE_KINDS as RESOURCE_KINDS
from engines.kit.iam.vocabulary import ROLE_ACTIONS as ROLE_ACTIONS
from engines.kit.iam.vocabulary import SERVICE_ACTIONS as SERVICE_ACTIONS
from engines.kit.iam.vocabulary import PlatformRole as PlatformRole
from engines.kit.iam.vocabulary import ServiceRole as ServiceRole
from engines.kit.iam.vocabulary import data_action as data_action
from engines.kit.iam.vocabulary import data_role as data_role
