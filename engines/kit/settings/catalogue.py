"""The twelve engines by name: title, product and default port (design.md section 3).

`engines.registry` lists those that exist; this table also holds those that come later, because
weftkit.toml may already speak of them.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class EngineTitle:
    """How people call an engine, and where it listens if nobody says otherwise."""

    title: str
    product: str
    port: int


ENGINES: dict[str, EngineTitle] = {
    "botpress": EngineTitle("Botpress chat and tables", "WeftKitBotpress", 8082),
    "cloudant": EngineTitle("Cloudant / CouchDB", "WeftKitCloudant", 5984),
    "document": EngineTitle("Document store", "WeftKitDoc", 27017),
    "filestore": EngineTitle("Binary file / blob storage", "WeftKitFile", 8081),
    "graph": EngineTitle("Graph database", "WeftKitGraph", 7687),
    "inmemory": EngineTitle("In-memory store", "WeftKitMem", 6379),
    "keyvalue": EngineTitle("Key-value store", "WeftKitKV", 8000),
    "markdown": EngineTitle("Markdown / structured text", "WeftKitMD", 8080),
    "relational": EngineTitle("Relational / SQL", "WeftKitRel", 5432),
    "typedb": EngineTitle("TypeDB", "WeftKitTypeDB", 8729),
    "unison": EngineTitle("UnisonDB", "WeftKitUnison", 4000),
    "vector": EngineTitle("Vector search", "WeftKitVec", 50051),
}

# Ports that no engine may take, and who listens there.
RESERVED_PORTS: dict[int, str] = {
    8088: "the control plane without TLS",
    8443: "the control plane",
    9090: "the data plane's metrics and health",
}
