"""weftkit.toml: from text to typed, frozen settings, or to one error with file and line.

Read in this order: `catalogue` (the twelve engines and their ports), `keys` (what a key may hold),
`schema` (every section as a dataclass), `positions` (on which line a key stands), `reader`
(`parse`, which puts them together) and `crosschecks` (rules between keys).
"""

from engines.kit.settings.catalogue import ENGINES as ENGINES
from engines.kit.settings.catalogue import EngineTitle as EngineTitle
from engines.kit.settings.reader import parse as parse
from engines.kit.settings.schema import EngineSection as EngineSection
from engines.kit.settings.schema import Settings as Settings
from engines.kit.settings.schema import SettingsError as SettingsError
